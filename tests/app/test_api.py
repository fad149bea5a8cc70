"""The end points for programs: what they give, what their errors say, and that no path of a stranger's is opened."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from app.drafts import Drafts
from app.inspector import Inspector
from app.page import Page
from app.serve import launched
from recon.settings import load

SECRET = "root-of-all-secrets"


class Reads(Inspector):
    """Gives away what it is asked to look at."""

    def look(self, source):
        return {"title": source.stem, "content": source.read_text(errors="replace")[:2000], "kind": "photos"}


@pytest.fixture
def page(jobs, numbers):
    return Page(jobs, Drafts(jobs.own / "drafts", jobs.uploads, Reads()), {"numbers": numbers}, ("toy",))


@pytest.fixture
def address(page, monkeypatch):
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(page.jobs.uploads))
    with launched(page, load({"port": port, "min_free_gb": 0})) as address:
        yield address


def test_a_job_from_begin_to_delete(page, address, wait):
    client = Client(address, verbose=False)
    job = client.predict(
        "sample:numbers", "toy", "medium", {"steps": 300, "pause": 0.02}, "by program", api_name="/begin"
    )
    wait(page.jobs, job, "running")
    watched = client.submit(job, api_name="/watch")
    assert client.predict(job, api_name="/cancel")["status"] in ("stopping", "cancelled")
    states = list(watched)
    assert (states[-1]["status"], states[-1]["resumable"]) == ("cancelled", True)
    assert client.predict(job, api_name="/resume")["busy"]
    wait(page.jobs, job, "running")
    other = client.predict(job, "toy", "fast", {"title": "other"}, "", api_name="/clone")
    assert client.predict(other, api_name="/state")["place"] == 1
    client.predict(job, api_name="/cancel")
    state = list(client.submit(other, api_name="/watch"))[-1]
    assert state["status"] == "done"
    report = httpx.get(address + state["exports"]["exports/report.txt"])
    assert report.text.startswith("other ")
    assert {entry["id"] for entry in client.predict("", api_name="/jobs")} == {job, other}
    assert [entry["id"] for entry in client.predict("by program", api_name="/jobs")] == [job]
    assert client.predict(job, api_name="/delete") is True
    with pytest.raises(AppError, match="There is no such job"):
        client.predict(job, api_name="/state")


def test_errors_say_what_and_what_to_do(address):
    client = Client(address, verbose=False)
    for values, words in (
        (("sample:numbers", "toy", "fast", {"steps": 0}), "must be a whole number from 1"),
        (("sample:numbers", "toy", "fast", {"stepps": 1}), "Did you mean 'steps'"),
        (("sample:numbers", "tooy", "fast", {}), "Did you mean 'toy'"),
        (("sample:nothing", "toy", "fast", {}), "Drop them again"),
    ):
        with pytest.raises(AppError) as caught:
            client.predict(*values, "", api_name="/begin")
        assert words in str(caught.value)
        assert "Traceback" not in str(caught.value)


def call(address: str, name: str, *values: object) -> str:
    """Return all that the server says when an end point is called with these very values, which no client would do."""
    began = httpx.post(f"{address}gradio_api/call/{name}", json={"data": list(values)}, timeout=30)
    if began.status_code != 200:
        return f"error {began.status_code} {began.text}"
    with httpx.stream("GET", f"{address}gradio_api/call/{name}/{began.json()['event_id']}", timeout=60) as stream:
        return "\n".join(stream.iter_lines())


def paths(secret: Path, uploads: Path) -> list[str]:
    """Return dozens of ways to name a file that was not uploaded."""
    up = "../" * 12
    plain = [str(secret), "/etc/passwd", "/etc/hosts", "/proc/self/environ", "/proc/self/cmdline", str(Path(__file__))]
    led = [f"{uploads}/{up}{name.lstrip('/')}" for name in plain] + [f"{uploads}/../../{secret.name}", f"{uploads}/.."]
    odd = [f"file://{secret}", f"file={secret}", f"//{secret}", f"/.{secret}", f"{secret}/", f"{secret}/.", "~/.bashrc"]
    odd += [
        str(secret).replace("/", "\\"),
        str(secret).replace("/", "%2f"),
        f"{secret}\0.jpg",
        "a\0b",
        "",
        ".",
        "..",
        "/",
    ]
    odd += [
        "http://127.0.0.1:1/x.jpg",
        "https://example.com/x.jpg",
        "ftp://example.com/x",
        "data:image/png;base64,AA==",
    ]
    odd += [f"{uploads}", f"{uploads}/link.jpg", "x" * 5000, "\u202e/etc/passwd", "．．/etc/passwd", "..\uff0fetc"]
    return plain + led + odd


def test_no_file_is_opened_that_was_not_uploaded(page, address, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    (page.jobs.uploads / "link.jpg").symlink_to(secret)
    tried = paths(secret, page.jobs.uploads)
    assert len(tried) > 36
    files = [
        {"path": path, **more} for path in tried for more in ({"meta": {"_type": "gradio.FileData"}}, {"url": path})
    ]
    with ThreadPoolExecutor(8) as pool:
        for file, told in zip(files, pool.map(lambda file: call(address, "inspect", [file]), files), strict=True):
            assert "error" in told, file
            assert SECRET not in told
            assert "root:" not in told
    assert list(page.drafts.folder.iterdir()) == []


NAMES = (
    *(
        "..",
        "../..",
        "../../etc/passwd",
        "/etc/passwd",
        ".page",
        ".page/index.sqlite",
        "a/../../x",
        "..\\..\\x",
        "%2e%2e",
    ),
    *(
        "\0",
        "a\0b",
        "x" * 5000,
        "~",
        "*",
        "",
        " ",
        None,
        7,
        ["x"],
        {"path": "/etc/passwd"},
        "job;rm -rf /",
        "$(id)",
        "．．",
    ),
)


def test_no_job_is_opened_that_is_none(address, numbers):
    clone, export = ("toy", "fast", {}, ""), ("mesh", ".glb", None, None)
    points = {"state": (), "watch": (), "cancel": (), "resume": (), "delete": (), "clone": clone, "export": export}
    calls = [(point, name, *more) for name in NAMES for point, more in points.items()]
    calls += [("begin", draft, "toy", "fast", {}, "") for draft in NAMES]
    suffixes = ("/../../x.glb", ".glb/../../x", "/etc/passwd", ".html", ".exe", "", None, "\0")
    calls += [("export", "x", "mesh", suffix, None, None) for suffix in suffixes]
    with ThreadPoolExecutor(8) as pool:
        for values, told in zip(calls, pool.map(lambda values: call(address, *values), calls), strict=True):
            assert "event: error" in told or told.startswith("error"), values
            assert "root:" not in told
    assert (numbers / "a.txt").exists()
