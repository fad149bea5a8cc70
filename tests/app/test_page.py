"""The web page without a browser: what it starts, shows, stops, and refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gradio.context import LocalContext
from gradio.processing_utils import move_files_to_cache

from app.cli import main
from app.follow import Follower
from app.jobs import Jobs
from app.page import SHOWN, Page, build
from app.page_form import from_form, shown_names, to_form
from app.page_view import downloads, figures, notice, progress
from app.serve import check_address, launched
from app.uploads import ADVICE
from app.upright import turn_to_y, upright
from app.worker import run_arguments
from recon import pipelines
from recon.config import resolve
from recon.errors import InputError
from recon.export import read_mesh, write_mesh
from recon.mesh.mesh import Mesh
from recon.splats.config import SplatsConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "job"))
import toy_pipeline

TOY = pipelines.get("toy")
PROGRAM = "import sys; sys.path[:0] = {paths}; import toy_pipeline; from app.cli import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("RECON_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def jobs(tmp_path):
    folders = [str(Path(__file__).parents[1] / "job"), str(Path(__file__).parents[2])]
    made = Jobs(tmp_path / "jobs", (sys.executable, "-c", PROGRAM.format(paths=folders)))
    yield made
    made.close()


def wait(jobs: Jobs, *statuses: str, seconds: float = 60):
    until = time.monotonic() + seconds
    while (state := jobs.current()) is None or state.status not in statuses:
        assert time.monotonic() < until, state
        time.sleep(0.05)
    return state


def toy(**changes):
    return {**dict(resolve(toy_pipeline.ToyConfig)), **changes}


# --- a job from start to end ---


def test_a_job_runs_in_a_process_and_is_followed(jobs, numbers):
    page = Page(jobs, TOY, sample=numbers)
    values = to_form(TOY.config, toy(steps=30, pause=0.02))
    assert page.look({})[1 + SHOWN.index("progress")]["value"] == progress(None)
    assert page.begin(None, "sample", "medium", *values) == ""
    assert "A reconstruction is running." in page.begin(None, "sample", "medium", *values)
    running = wait(jobs, "running", "done")
    assert [stage.name for stage in running.stages] == ["read", "walk", "report"]
    state = wait(jobs, "done")
    assert [stage.state for stage in state.stages] == ["done"] * 3
    assert state.stages[1].step == state.stages[1].total == 30
    assert state.result["metrics"]["psnr"] == pytest.approx(state.metrics["psnr"])
    assert state.warnings == ("one number looks odd",)
    assert state.exports["report"].read_text().startswith("mean ")
    assert not state.busy
    assert not state.resumable
    seen, *updates = page.look({})
    told = dict(zip(SHOWN, updates, strict=True))
    assert "Done" in told["progress"]["value"]
    assert "one number looks odd" in told["progress"]["value"]
    assert "PSNR" in told["figures"]["value"]
    assert "Open the report" in told["downloads"]["value"]
    assert told["start"]["interactive"]
    assert not told["cancel"]["visible"]
    assert not told["video"]["visible"]
    assert [update for update in page.look(seen)[1:] if set(update) != {"__type__"}] == [], (
        "a second look sends nothing"
    )


def test_cancel_takes_effect_at_once_and_resume_goes_on(jobs, numbers):
    page = Page(jobs, TOY)
    jobs.start(numbers, TOY, "medium", toy(steps=400, pause=0.02, title="so far"))
    while not wait(jobs, "running").stages[1].step >= 10:
        time.sleep(0.02)
    asked = time.monotonic()
    assert page.cancel() == ""
    assert jobs.current().status == "stopping"
    state = wait(jobs, "cancelled")
    assert time.monotonic() - asked < 2
    assert [stage.state for stage in state.stages] == ["done", "ended", "waiting"]
    assert state.resumable
    assert "Press Resume" in progress(state)
    assert "--resume" not in progress(state)
    reached = state.stages[1].step
    assert page.resume() == ""
    assert jobs.current().status == "starting"
    assert jobs.current().seconds == 0
    state = wait(jobs, "running")
    while not state.stages[1].step:
        state = wait(jobs, "running")
    assert state.stages[0].state == "cached"
    assert state.stages[1].step >= reached - 10, "it goes on from its checkpoint"
    settings = (jobs.folder / state.id / "config.yaml").read_text()
    assert "title: so far" in settings


def test_a_new_server_shows_the_running_job_and_can_stop_it(jobs, numbers):
    jobs.start(numbers, TOY, "medium", toy(steps=2000, pause=0.02))
    first = wait(jobs, "running")
    other = Jobs(jobs.folder)
    found = other.current()
    assert (found.id, found.status) == (first.id, "running")
    assert found.title == "numbers"
    with pytest.raises(InputError, match="A reconstruction is running"):
        other.start(numbers, TOY, "medium", {})
    other.cancel()
    wait(other, "cancelled", seconds=5)
    assert Jobs(jobs.folder).current().status == "cancelled"


def test_a_killed_job_is_shown_as_interrupted(jobs, numbers):
    jobs.start(numbers, TOY, "medium", toy(steps=2000, pause=0.02))
    state = wait(jobs, "running")
    os.kill(int((jobs.folder / state.id / ".egregium.lock").read_text()), signal.SIGKILL)
    state = wait(jobs, "interrupted")
    assert state.resumable
    assert "ended unexpectedly" in progress(state)
    assert Jobs(jobs.folder).current().status == "interrupted"


def test_closing_the_server_stops_the_job(jobs, numbers):
    jobs.start(numbers, TOY, "medium", toy(steps=2000, pause=0.02))
    wait(jobs, "running")
    assert jobs.close()
    assert jobs.current().status == "cancelled"
    assert not jobs.close()


def test_errors_have_message_and_hint(jobs, tmp_path, monkeypatch):
    page = Page(jobs, TOY)
    assert page.begin([], "own", "fast", *to_form(TOY.config, toy())) == notice(
        InputError("There is nothing to reconstruct yet.", ADVICE)
    )
    text = page.begin([], "own", "fast", *to_form(TOY.config, toy(steps=0)))
    assert "Setting &#x27;steps&#x27; is 0; it must be a whole number from 1 to 10000." in text
    assert "recon run" not in text
    (tmp_path / "empty").mkdir()
    jobs.start(tmp_path / "empty", TOY, "fast", {})
    state = wait(jobs, "failed")
    assert state.error[1] == "Put some numbers there."
    assert "holds no .txt files" in progress(state)
    monkeypatch.setattr(jobs, "cancel", lambda: 1 / 0)
    text = page.cancel()
    assert "defect" in text
    assert "Traceback" not in text


def test_no_path_of_a_strangers_is_opened(jobs, tmp_path):
    page, values = Page(jobs, TOY), to_form(TOY.config, toy())
    jobs.uploads.mkdir()
    inside, outside = jobs.uploads / "a.jpg", tmp_path / "b.jpg"
    outside.write_text("secret")
    inside.write_text("a")
    for path in (outside, jobs.uploads / "../../../b.jpg", "/etc/passwd"):
        assert "was not uploaded" in page.begin([str(inside), str(path)], "own", "fast", *values)
    assert "a.jpg is no photo" in page.begin([str(inside)], "own", "fast", *values)
    assert sorted(path.name for path in (jobs.folder / ".page").iterdir()) == ["uploads"], "nothing is left behind"


def test_a_worker_that_cannot_even_begin(numbers, tmp_path):
    out = json.dumps({"status": "failed", "error": {"message": "No way.", "hint": "Turn back."}})
    jobs = Jobs(tmp_path / "jobs", (sys.executable, "-c", f"print('''{out}''')"))
    jobs.start(numbers, TOY, "fast", {})
    state = wait(jobs, "failed")
    assert state.error == ("No way.", "Turn back.")
    assert not state.resumable
    with pytest.raises(InputError, match="no job to resume"):
        jobs.resume()


def test_other_formats_are_made_once_and_offered(numbers, tmp_path):
    script = tmp_path / "recon.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "a = sys.argv\n"
        "if a[1] == 'export':\n"
        "    pathlib.Path(a[4]).write_text('x'); sys.exit()\n"
        "job = pathlib.Path(a[a.index('--out') + 1]); (job / 'exports').mkdir(parents=True)\n"
        "(job / 'exports/splats.ply').write_text('ply'); (job.parent / 'secret.txt').write_text('s')\n"
        "(job / 'config.yaml').write_text('egregium: 1\\npipeline: toy\\npreset: fast\\ninput: /x\\n')\n"
        "exports = {'splats': 'exports/splats.ply', 'gone': 'exports/gone', 'out': '../secret.txt'}\n"
        "result = {'status': 'done', 'seconds': {'total': 2}, 'metrics': {'psnr': 31.25, 'loss': 1}, 'error': None,\n"
        "          'counts': {'splats': 1200}, 'peak_memory_mb': 5, 'exports': exports}\n"
        "(job / 'result.json').write_text(json.dumps(result))\n"
    )
    jobs = Jobs(tmp_path / "jobs", (sys.executable, str(script)))
    jobs.start(numbers, TOY, "fast", {})
    until = time.monotonic() + 30
    while len((state := wait(jobs, "done")).exports) < 3 or state.converting:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert set(state.exports) == {"splats", "splat", "spz"}, "what is missing or outside of the job is not offered"
    assert "splats.spz" in downloads(state, str)
    assert "secret" not in downloads(state, str)
    text = figures(state)
    assert "<dd>31.25 dB</dd>" in text
    assert "<dd>1,200</dd>" in text
    assert "Loss" not in text


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


def test_the_environment_shows_in_the_form(jobs, monkeypatch):
    monkeypatch.setenv("RECON_STEPS", "77")
    assert 77 in Page(jobs, TOY).choose_preset("fast")


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


# --- the mesh, upright ---


def turned(rotation: list[float], vector: list[float]) -> np.ndarray:
    """Rotate by a quaternion xyzw."""
    axis, w = np.array(rotation[:3]), rotation[3]
    return np.array(vector) + 2 * np.cross(axis, np.cross(axis, vector) + w * np.array(vector))


@pytest.mark.parametrize("up", [[0, 0, 1], [0, 1, 0], [0, -1, 0], [0.6, 0, -0.8], [0.48, -0.64, 0.6]])
def test_up_becomes_y(up):
    rotation = turn_to_y(np.array(up, dtype=float))
    assert np.linalg.norm(rotation) == pytest.approx(1)
    assert turned(rotation, up) == pytest.approx([0, 1, 0])


def test_the_viewers_mesh_is_turned_and_nothing_else(tmp_path):
    mesh, cameras, copy = tmp_path / "mesh.glb", tmp_path / "transforms.json", tmp_path / "copy.glb"
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 2]], dtype=np.float32)
    write_mesh(Mesh(vertices, np.array([[0, 1, 2]], dtype=np.int32), None), mesh)
    sideways = np.array([[1, 0, 0, 5], [0, 0, -1, 5], [0, 1, 0, 5], [0, 0, 0, 1]])  # up is +z
    cameras.write_text(json.dumps({"frames": [{"transform_matrix": sideways.tolist()}] * 3}))
    assert upright(mesh, cameras, copy) == copy
    assert read_mesh(copy).vertices == pytest.approx(np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]]), abs=1e-6)
    around = [np.diag([1, sign, sign, 1]).tolist() for sign in (1, -1)]
    cameras.write_text(json.dumps({"frames": [{"transform_matrix": pose} for pose in around]}))
    copy.unlink()
    assert upright(mesh, cameras, copy) == mesh, "photos that disagree about up"
    mesh.write_bytes(b"glTF, perhaps")
    cameras.write_text("{}")
    assert upright(mesh, cameras, copy) == mesh
    assert not copy.exists()


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


def test_the_page_is_built_whole(jobs, numbers):
    blocks = build(Page(jobs, pipelines.get("splats"), sample=None))
    labels = {getattr(block, "label", None) for block in blocks.blocks.values()}
    assert {"Photos, a zip, or a video", "Preset", "Steps", "Hold out", "Turntable", "Mesh"} <= labels
    assert not blocks.analytics_enabled


def test_a_result_can_be_shown_wherever_the_jobs_lie(jobs, numbers, tmp_path, monkeypatch):
    """Gradio lets pass whatever lies in the folder for temporary files, where tests have theirs and people do not."""
    jobs.start(numbers, TOY, "fast", {})
    state = wait(jobs, "done")
    files = {}
    for name in ("turntable.mp4", "mesh.glb"):
        files[Path(name).stem] = state.exports["report"].with_name(name)
        files[Path(name).stem].write_bytes(b"content")
    monkeypatch.setattr(jobs, "current", lambda: replace(state, exports={**state.exports, **files}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    page = Page(jobs, TOY)
    blocks = build(page)
    blocks.has_launched, blocks.allowed_paths, blocks.blocked_paths = True, [], []
    LocalContext.blocks.set(blocks)
    (looking, *_) = (f for f in blocks.fns.values() if f.fn == page.look)
    values = []
    for block, update in zip(looking.outputs, page.look({}), strict=True):
        if update.get("value") and "visible" in update:
            value = block.postprocess(update["value"])
            values.append(move_files_to_cache(value, block, postprocess=True))
    LocalContext.blocks.set(None)
    assert any("turntable.mp4" in str(value) for value in values)
    assert any("mesh.glb" in str(value) for value in values)


def get(address: str, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address + path, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_only_a_jobs_own_files_are_served_and_only_to_those_who_know_the_password(jobs, numbers, port, tmp_path):
    page = Page(jobs, TOY, sample=numbers)
    jobs.start(numbers, TOY, "fast", {})
    state = wait(jobs, "done")
    link = page._link(state.exports["report"])
    beside = link.rpartition("exports/")[0] + "config.yaml"
    with launched(page, "127.0.0.1", port, None) as address:
        assert get(address, "")[0] == 200
        assert get(address, link) == (200, state.exports["report"].read_bytes())
        assert get(address, beside)[0] == 403
        assert get(address, f"gradio_api/file={Path(__file__)}")[0] == 403
        assert get(address, "gradio_api/file=/etc/passwd")[0] == 403
        assert b'"api_visibility":"public"' not in get(address, "config")[1].replace(b" ", b"")
    with launched(page, "127.0.0.1", port, "word") as address:
        assert get(address, link)[0] == 401
        assert get(address, "config")[0] == 401
        request = urllib.request.Request(address + "login", data=b"username=x&password=wrong", method="POST")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=20)
        request.data = b"username=x&password=word"
        assert json.load(urllib.request.urlopen(request, timeout=20))["success"]


def test_the_command_serves_until_ctrl_c(start, port, tmp_path):
    with start("serve", "--port", port, "--jobs", tmp_path / "jobs") as process:
        line = process.stderr.readline()
        assert f"http://127.0.0.1:{port}" in line
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
