"""The web page without a browser: what it shows, what it does, and what it refuses."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from gradio.context import LocalContext
from gradio.processing_utils import move_files_to_cache
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from app.cli import main
from app.drafts import Drafts
from app.follow import Follower
from app.inspector import Inspector
from app.page import FOUND, SHOWN, Page, build
from app.page_form import from_form, shown_names, to_form
from app.page_view import notice
from app.serve import check_address, launched
from app.worker import run_arguments
from recon import pipelines
from recon.config import resolve
from recon.errors import InputError, ReconstructionError
from recon.settings import load
from recon.splats.config import SplatsConfig

TOY = pipelines.get("toy")
FINDINGS = {
    **{
        "kind": "photos",
        "photos": 3,
        "points": 0,
        "sizes": [(40, 30, 3)],
        "posed": False,
        "masked": 0,
        "title": "three",
    },
    **{"problems": ["3 photos <are> few."], "warnings": [], "pipelines": ["toy", "other"]},
    **{"estimated_seconds": {"toy": {"fast": 90, "medium": 240, "high": 9000}}, "normals": False},
    "thumbnails": [
        {"name": "a.jpg", "jpeg": "QQ==", "rejected": False, "reason": ""},
        {"name": "b.jpg", "jpeg": "QQ==", "rejected": True, "reason": "is cut short"},
    ],
}
SKIP = gr.skip()


class Known(Inspector):
    """Finds the same in everything."""

    def look(self, source):
        return json.loads(json.dumps(FINDINGS))


def toy(**changes):
    return {**dict(resolve(TOY.config)), **changes}


@pytest.fixture
def page(jobs, numbers):
    drafts = Drafts(jobs.own / "drafts", jobs.uploads, Known())
    return Page(jobs, drafts, {"numbers": numbers}, ("toy",))


@pytest.fixture
def photos(jobs, tmp_path):
    """Uploaded files that tell photos by their first bytes."""
    from PIL import Image

    paths = []
    for i in range(3):
        folder = jobs.uploads / str(i)
        folder.mkdir()
        paths.append(folder / f"IMG_{i}.JPG")
        Image.new("RGB", (40, 30), (i, 0, 0)).save(paths[-1], "JPEG")
    return [str(path) for path in paths]


def look(page, seen, job="", side="live", words=""):
    """Return what a tab has seen, and what it is told, by name."""
    seen, *updates = page.look(seen, job, side, "mesh", words)
    return seen, {name: update for name, update in zip(SHOWN, updates, strict=True) if update != SKIP}


def took(page, updates):
    return dict(zip((*FOUND, *(f"group {name}" for name in page.names)), updates, strict=True))


# --- New ---


def test_what_is_dropped_is_told_and_can_be_begun(page, photos, wait):
    told = took(page, page.take(photos))
    assert "3 photos, 40 × 30, camera poses to be found" in told["found"]["value"]
    assert "3 photos &lt;are&gt; few." in told["found"]["value"]
    assert "eg-rejected" in told["strip"]["value"]
    assert "is cut short" in told["strip"]["value"]
    assert told["pipeline"]["choices"] == [("A walk towards a mean.", "toy")]
    assert [label for label, _ in told["preset"]["choices"]] == [
        "fast · about 2 min",
        "medium · about 4 min",
        "high · about 2.5 h",
    ]
    assert told["start"]["interactive"]
    assert told["group toy"]["visible"]
    job, tabs, text = page.begin(told["draft"], "My <thing>", "toy", "medium", *to_form(TOY.config, toy(steps=5)))
    assert (tabs["selected"], text) == ("live", "")
    assert job.endswith("My_thing")
    state = wait(page.jobs, job, "failed")
    assert "holds no .txt files" in state.error[0], "photos, which it got, are no numbers"
    assert "/" not in state.error[0]


def test_a_sample_is_one_click(page, wait):
    told = took(page, page.choose("sample:numbers", None))
    job, *_ = page.begin(told["draft"], "", "toy", "medium", *to_form(TOY.config, toy(steps=5)))
    assert wait(page.jobs, job, "done").title == "numbers"
    assert took(page, page.choose("sample:../secret", None))["draft"] == {}


def test_nothing_dropped_can_begin_nothing(page, photos):
    told = took(page, page.take(None))
    assert not told["start"]["interactive"]
    job, tabs, text = page.begin({}, "", "toy", "medium", *to_form(TOY.config, toy()))
    assert (job, tabs) == (SKIP, SKIP)
    assert "Drop them again" in text
    draft = took(page, page.take(photos))["draft"]
    assert (
        "Setting &#x27;steps&#x27; is 0"
        in page.begin(draft, "", "toy", "medium", *to_form(TOY.config, toy(steps=0)))[2]
    )
    assert "Unknown pipeline" in page.begin(draft, "", "../x", "medium", *to_form(TOY.config, toy()))[2]
    assert page.jobs.listing() == []


def test_what_lies_among_photos_is_left_out_and_named(page, photos):
    note = page.jobs.uploads / "milk & eggs.txt"
    note.write_text("Bring some.")
    told = took(page, page.take([*photos, str(note)]))
    assert "Left out, being no photos: milk_eggs.txt." in told["found"]["value"]
    assert told["start"]["interactive"]


def test_no_path_of_a_strangers_is_opened(page, photos, tmp_path):
    outside = tmp_path / "b.jpg"
    outside.write_bytes(Path(photos[0]).read_bytes())
    link = page.jobs.uploads / "link.jpg"
    link.symlink_to(outside)
    for path in (outside, page.jobs.uploads / "../../../b.jpg", "/etc/passwd", link, page.jobs.uploads, "", "a\0b"):
        told = took(page, page.take([photos[0], str(path)]))
        assert told["draft"] == {}, path
        assert "eg-error" in told["notice"]
        assert "passwd" not in told["notice"] or "was not uploaded" in told["notice"]
    for draft in ("..", "../uploads", "/etc", "0" * 32, "", "x" * 32, None):
        text = page.begin({"id": draft}, "", "toy", "medium", *to_form(TOY.config, toy()))[2]
        assert "eg-error" in text, draft
    assert list(page.drafts.folder.iterdir()) == [], "nothing is left behind"


def test_a_clone_brings_its_settings(page, numbers, wait):
    job = page.jobs.begin(numbers, "toy", "fast", {"steps": 7, "title": "first", "formats": ("md",)})
    updates = page.clone(job)
    told = dict(zip(FOUND, updates, strict=False))
    assert (told["pipeline"]["value"], told["preset"]["value"]) == ("toy", "fast")
    values = updates[len(FOUND) + 1 : -1]
    assert from_form(TOY.config, values)["steps"] == 7
    assert updates[-1]["selected"] == "new"
    again, *_ = page.begin(told["draft"], "second", "toy", "fast", *to_form(TOY.config, toy(steps=5, title="other")))
    assert wait(page.jobs, again, "done").exports["exports/report.txt"].read_text().startswith("other ")
    assert "no such job" in dict(zip(FOUND, page.clone("../x"), strict=False))["notice"]


# --- Live, Result and Jobs ---


def test_a_tab_sees_a_job_from_start_to_end_and_is_told_only_what_is_new(page, numbers, wait):
    seen, told = look(page, {})
    assert "Nothing to watch yet" in told["progress"]["value"]
    job = page.jobs.begin(numbers, "toy", "medium", {"steps": 60, "pause": 0.02, "loud": True})
    wait(page.jobs, job, "running")
    seen, told = look(page, seen, job)
    assert "Running" in told["progress"]["value"]
    assert told["cancel"] == gr.update(visible=True, interactive=True)
    wait(page.jobs, job, "done")
    seen, told = look(page, seen, job)
    assert "Done" in told["progress"]["value"]
    assert "very loud" in told["progress"]["value"]
    assert "<polyline" in told["curve"]["value"]
    assert told["tabs"]["selected"] == "result", "who watched it is shown what came out"
    assert not told["cancel"]["visible"]
    seen, told = look(page, seen, job, "result")
    assert "PSNR" in told["summary"]["value"]
    assert f"job/{job}/exports/report.txt" in told["downloads"]["value"]
    for _ in range(2):
        seen, told = look(page, seen, job, "result")
    assert told == {}, "a second look sends nothing"
    seen, told = look(page, seen, job, "jobs", "numb")
    assert told["cards"]["value"].count("<article") == 1
    _, told = look(page, seen, job, "jobs", "nothing like that")
    assert "No job has these words" in told["cards"]["value"]


def test_a_job_that_waits_says_so(page, numbers, wait):
    first = page.jobs.begin(numbers, "toy", "medium", {"steps": 2000, "pause": 0.02})
    wait(page.jobs, first, "running")
    second, third = (page.jobs.begin(numbers, "toy", "medium", {}) for _ in range(2))
    assert "It is the next one" in look(page, {}, second)[1]["progress"]["value"]
    assert "1 jobs are before it" in look(page, {}, third)[1]["progress"]["value"]
    for job in (third, second, first):
        page.act("cancel", job)
    assert "Press Resume" in look(page, {}, third)[1]["progress"]["value"]


def test_a_new_tab_and_a_reloaded_one_find_their_job(page, numbers, wait):
    assert page.arrive("")[0] == ""
    first = page.jobs.begin(numbers, "toy", "medium", {"steps": 5})
    wait(page.jobs, first, "done")
    second = page.jobs.begin(numbers, "toy", "medium", {"steps": 2000, "pause": 0.02})
    wait(page.jobs, second, "running")
    assert (page.arrive("")[0], page.arrive("")[1]["selected"]) == (second, "live")
    page.act("cancel", second)
    wait(page.jobs, second, "cancelled")
    assert page.arrive("") == ["", SKIP, ""]
    assert (page.arrive(first)[0], page.arrive(first)[1]["selected"]) == (first, "result")
    job, side, told = page.arrive("../x")
    assert (job, side) == ("", SKIP)
    assert "There is no such job" in told


def test_buttons_do_what_they_say(page, numbers, wait):
    job = page.jobs.begin(numbers, "toy", "medium", {"steps": 2000, "pause": 0.02})
    assert page.act("open", job)[1]["selected"] == "live"
    assert "cannot be deleted" in page.act("delete", job)[2]
    page.act("cancel", job)
    wait(page.jobs, job, "cancelled")
    assert page.act("resume", job)[1]["selected"] == "live"
    page.act("cancel", job)
    wait(page.jobs, job, "cancelled")
    assert page.act("delete", job) == ["", SKIP, ""]
    assert page.jobs.listing() == []
    for name in ("open", "cancel", "resume", "delete"):
        assert "no such job" in page.act(name, "../x")[2]
    assert page.act("format the disk", "x")[2] == ""


def test_a_defect_shows_no_traceback(page, monkeypatch):
    monkeypatch.setattr(page.jobs, "cancel", lambda job: 1 / 0)
    text = page.act("cancel", "x")[2]
    assert "defect" in text
    assert "Traceback" not in text


# --- inspection ---


def test_captures_are_looked_at_in_a_process_that_may_crash(tmp_path, plain_environment, monkeypatch):
    cloud = tmp_path / "points.xyz"
    cloud.write_text("".join(f"{i % 7} {i % 11} {i % 13}\n" for i in range(3000)))
    inspector = Inspector()
    try:
        found = inspector.look(cloud)
        assert (found["points"], found["pipelines"], found["title"]) == (3000, ["points"], "points")
        with pytest.raises(InputError, match="does not exist"):
            inspector.look(tmp_path / "absent.xyz")
        child = inspector._child
        child.kill()
        child.wait()
        assert inspector.look(cloud)["points"] == 3000, "the next question gets a new one"
        monkeypatch.setattr("app.inspector.SECONDS", 0.0)
        with pytest.raises(ReconstructionError, match="too long"):
            inspector.look(cloud)
        assert inspector._child is None
    finally:
        inspector.close()


# --- the form ---


def test_the_form_is_the_declaration():
    assert shown_names(SplatsConfig) == list(SplatsConfig.model_fields)
    for preset in SplatsConfig.presets:
        config = resolve(SplatsConfig, preset=preset)
        assert resolve(SplatsConfig, flags=from_form(SplatsConfig, to_form(SplatsConfig, dict(config)))) == config
    given = toy(title=None, formats=("txt", "md"), loud=True)
    assert resolve(TOY.config, flags=from_form(TOY.config, to_form(TOY.config, given))) == resolve(
        TOY.config, flags=given
    )


def test_every_setting_reaches_the_command_line(tmp_path, numbers):
    given = toy(title="-x, y", formats=("txt", "md"), loud=True, pause=0.5)
    arguments = run_arguments(numbers, tmp_path / "job", TOY, "fast", given)
    from app.cli import _parser
    from app.flags import given_settings

    parsed = given_settings(_parser(arguments).parse_args(arguments))
    assert resolve(TOY.config, flags=parsed) == resolve(TOY.config, flags=given)


def test_the_environment_shows_in_the_form(page, monkeypatch):
    monkeypatch.setenv("RECON_STEPS", "77")
    assert 77 in page.choose_preset("fast")


def test_names_and_messages_are_escaped():
    assert "<script>" not in notice(InputError("<script>", "<script>"))


# --- events ---


def test_a_torn_line_waits_for_its_rest(tmp_path):
    path = tmp_path / "events.jsonl"
    follower = Follower.of(path, ["fit"])
    follower.update()
    started = json.dumps({"event": "StageStarted", "time": 1.0, "stage": "fit", "cached": False})
    progress = {"event": "Progress", "time": 2.0, "stage": "part", "step": 3, "total": 9, "eta": 1.5, "metrics": {}}
    text = f"{started}\nnonsense\n{json.dumps(progress)}\n".encode()
    with path.open("ab", buffering=0) as file:
        file.write(text[:-4])
        follower.update()
        assert (follower.current.name, follower.current.step) == ("fit", 0)
        file.write(text[-4:])
    follower.update()
    assert (follower.current.step, follower.current.total, follower.current.eta) == (3, 9, 1.5)


# --- the server ---


@pytest.fixture
def port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def test_it_does_not_listen_to_others_without_a_password(tmp_path, capsys, port):
    for host in ("0.0.0.0", "::", "example.invalid"):
        assert main(["serve", "--host", host, "--port", str(port), "--jobs", str(tmp_path / "jobs")]) == 2
        err = capsys.readouterr().err
        assert "there is no password" in err
        assert "--password" in err
    assert not (tmp_path / "jobs").exists()
    for host in ("127.0.0.1", "127.0.0.2", "localhost"):
        check_address(host, port, None)
    check_address("0.0.0.0", port, "word")
    with pytest.raises(InputError, match="password is empty"):
        check_address("127.0.0.1", port, "")


def test_a_taken_port_is_named(port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(InputError, match=str(port)):
            check_address("127.0.0.1", port, None)
    with pytest.raises(InputError, match="70000 is no port"):
        check_address("127.0.0.1", 70_000, None)


def test_the_page_is_built_whole(page):
    blocks = build(page)
    labels = {getattr(block, "label", None) for block in blocks.blocks.values()}
    assert {"Photos, a zip, a video, a point cloud or a mesh", "Preset", "Steps", "Digits", "Name", "Find"} <= labels
    assert not blocks.analytics_enabled


def test_every_pipeline_has_its_settings_on_the_page(jobs):
    blocks = build(Page(jobs, Drafts(jobs.own / "drafts", jobs.uploads, Known()), {}, ("splats", "mesh", "points")))
    labels = [getattr(block, "label", None) for block in blocks.blocks.values()]
    assert {f"Advanced: settings of {name}" for name in ("splats", "mesh", "points")} <= set(labels)
    assert labels.count("Steps") == 3


def test_the_3d_view_may_have_a_jobs_model_wherever_the_jobs_lie(page, numbers, wait, tmp_path, monkeypatch):
    """Gradio lets pass whatever lies in the folder for temporary files, where tests have theirs and people do not."""
    job = page.jobs.begin(numbers, "toy", "medium", {"steps": 5})
    state = wait(page.jobs, job, "done")
    model = state.folder / "exports" / "mesh.glb"
    model.write_bytes(b"content")
    result = {**state.result, "exports": {"mesh": "exports/mesh.glb"}}
    changed = replace(state, exports={"exports/mesh.glb": model}, result=result)
    monkeypatch.setattr(page.jobs, "state", lambda job: changed)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    blocks = build(page)
    blocks.has_launched, blocks.allowed_paths, blocks.blocked_paths = True, [], []
    LocalContext.blocks.set(blocks)
    (looking, *_) = (f for f in blocks.fns.values() if f.fn == page.look)
    seen, *_ = page.look({}, job, "result", "mesh", "")
    update = page.look(seen, job, "result", "mesh", "")[1 + SHOWN.index("model")]
    block = looking.outputs[1 + SHOWN.index("model")]
    served = move_files_to_cache(block.postprocess(update["value"]), block, postprocess=True)
    LocalContext.blocks.set(None)
    assert "mesh.glb" in str(served)


def get(address: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address + path, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_only_what_jobs_made_is_served_and_only_to_those_who_know_the_password(page, numbers, port, wait):
    job = page.jobs.begin(numbers, "toy", "medium", {"steps": 5}, keep=True)
    state = wait(page.jobs, job, "done")
    report = state.exports["exports/report.txt"]
    link = f"job/{job}/exports/report.txt"
    with launched(page, load({"port": port})) as address:
        assert get(address, "")[0] == 200
        assert get(address, link) == (200, report.read_bytes())
        for path in (
            *(f"job/{job}/config.yaml", f"job/{job}/input/numbers/a.txt", f"job/{job}/exports/..%2fconfig.yaml"),
            *(f"job/{job}/exports/%2e%2e/config.yaml", f"job/..%2f{page.jobs.folder.name}/x", "job/.page/index.sqlite"),
            *(
                f"gradio_api/file={report}",
                f"gradio_api/file={state.folder}/config.yaml",
                "gradio_api/file=/etc/passwd",
            ),
            *(f"gradio_api/file={Path(__file__)}", "gradio_api/file=../../etc/passwd", "gradio_api/file=index.sqlite"),
            *("gradio_api/file=http://127.0.0.1:1/", "gradio_api/proxy=http://127.0.0.1:1/", "monitoring"),
        ):
            status, body = get(address, path)
            assert status >= 400, path
            assert b"root:" not in body
    with launched(page, load({"port": port, "password": "word"})) as address:
        assert get(address, link)[0] == 401
        assert get(address, "config")[0] == 401
        request = urllib.request.Request(address + "login", data=b"password=wrong", method="POST")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=20)
        request.data = b"password=word"
        with urllib.request.urlopen(request, timeout=20) as answer:
            cookie = answer.headers["set-cookie"].split(";")[0]
        inside = urllib.request.Request(address + link, headers={"cookie": cookie})
        with urllib.request.urlopen(inside, timeout=20) as answer:
            assert answer.read() == report.read_bytes()


def test_the_command_serves_until_ctrl_c(start, port, tmp_path):
    flags = ("--port", port, "--jobs", tmp_path / "jobs", "--min-free-gb", 0, "--max-files", 1)
    with start("serve", *flags) as process:
        line = process.stderr.readline()
        assert f"http://127.0.0.1:{port}" in line
        (tmp_path / "a.xyz").write_text("0 0 0\n" * 9)
        with pytest.raises(AppError, match="more than the 1"):
            Client(f"http://127.0.0.1:{port}/", verbose=False).predict(
                [handle_file(str(tmp_path / "a.xyz"))] * 2, api_name="/inspect"
            )
        assert (tmp_path / "jobs/.page/uploads").is_dir()
        second = subprocess.run(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(port + 1), "--jobs", str(tmp_path / "jobs")],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert second.returncode == 2
        assert "Another 'recon serve'" in second.stderr
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert not (tmp_path / "jobs/.page/uploads").exists()
