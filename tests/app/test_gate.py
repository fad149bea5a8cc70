"""The gate in front of the page: who comes in, and that nothing leads out."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest

from app import gate
from app.gate import COOKIE, Gate
from recon.settings import load

HTML = {"accept": "text/html,*/*"}


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(gate, "GUESS_SECONDS", 0.0)


def ask(guard, path="/", method="GET", headers=None, body=b""):
    """Return (status, headers, body) of one request; ``inside`` is the body of what was let through."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    pairs = [(k.encode(), v.encode()) for k, v in {"host": "127.0.0.1:7860", **(headers or {})}.items()]
    asyncio.run(guard({"type": "http", "method": method, "path": path, "headers": pairs}, receive, send))
    told = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, sent[1]["body"]


async def inside(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


@pytest.fixture
def make(tmp_path):
    def make(password=None, names=(), **limits):
        return Gate(inside, load({"min_free_gb": 0, **limits}, {}), password, names, tmp_path)

    return make


def test_without_a_password_everybody_comes_in_who_calls_this_machine_by_its_name(make):
    guard = make(names=("127.0.0.1", "localhost", "::1"))
    for host in ("127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860"):
        assert ask(guard, headers={"host": host})[2] == b"inside"
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "localhost.", "x@localhost:1"):
        assert ask(guard, headers={"host": host})[0] == 421, host
    assert ask(make(), headers={"host": "scanner.example"})[2] == b"inside", (
        "where a password guards it, any name will do"
    )


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/gradio_api/queue/join", "/job/x/report.html", "/assets/index.js", "/theme.css", "//", "/login/"],
)
def test_with_a_password_nothing_at_all_is_given_without_it(make, path):
    guard = make("word")
    assert ask(guard, path)[0] == 401
    for value in ("", "x", f"{COOKIE}=", f"{COOKIE}=None", f"x{COOKIE}={guard._token}", f"{COOKIE}={guard._token}x"):
        assert ask(guard, path, headers={"cookie": value})[0] == 401
    for value in ("Basic", "Basic !", "Basic " + base64.b64encode(b"x:wrong").decode(), "Bearer word", "Basic word"):
        assert ask(guard, path, headers={"authorization": value})[0] == 401
    right = {"authorization": "Basic " + base64.b64encode(b"anybody:word").decode()}
    assert ask(guard, path, headers=right)[2] == b"inside"


def test_guessing_takes_its_time_in_every_way(make, monkeypatch):
    monkeypatch.setattr(gate, "GUESS_SECONDS", 0.2)
    guard = make("word")
    for request in (
        {"headers": {"authorization": "Basic " + base64.b64encode(b"x:wrong").decode()}},
        {"path": "/login", "method": "POST", "body": b"password=wrong"},
    ):
        began = time.monotonic()
        assert ask(guard, **request)[0] in (400, 401)
        assert time.monotonic() - began >= 0.2


def test_the_form_gives_a_cookie_that_opens_everything(make):
    guard = make("wörd & co")
    status, _, page = ask(guard, headers=HTML)
    assert status == 401
    assert b"<form" in page
    status, _, page = ask(guard, "/login", "POST", HTML, b"password=wrong")
    assert (status, b"That is not it" in page) == (401, True)
    status, told, _ = ask(guard, "/login", "POST", HTML, b"password=w%C3%B6rd+%26+co")
    assert (status, told["location"]) == (303, "./")
    assert {"HttpOnly", "SameSite=Strict"} <= set(told["set-cookie"].split("; "))
    assert ask(guard, headers={"cookie": f"other=1; {told['set-cookie'].split(';')[0]}"})[2] == b"inside"
    assert ask(guard, "/login", "POST", {}, b"username=x&password=nope")[0] == 400, "as gradio_client wants it"
    assert ask(guard, "/login", "POST", {}, b"password=" + b"x" * 10_000)[0] == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/file=http://example.com/x", "/file=https://example.com", "/gradio_api/proxy=http://example.com"),
        *("/gradio_api/file=http%3A%2F%2Fexample.com", "/gradio_api/file=http%253A//example.com", "/file=ftp://x"),
        *("/gradio_api/file=http:/example.com", "/gradio_api/proxy%3Dhttp://x"),
    ],
)
def test_nothing_outside_is_fetched_for_anybody(make, path):
    assert ask(make(), path)[0] == 403
    assert ask(make(), "/gradio_api/file=/tmp/x/photo.jpg")[2] == b"inside"


def test_uploads_must_fit(make):
    upload = {"method": "POST", "path": "/gradio_api/upload"}
    assert ask(make(), **upload, headers={"content-length": "1000"})[2] == b"inside"
    assert ask(make(), **upload)[0] == 411
    assert ask(make(), **upload, headers={"content-length": "-1"})[0] == 411
    assert ask(make(max_upload_gb=1e-6), **upload, headers={"content-length": "2000"})[0] == 413
    assert ask(make(min_free_gb=99_000), **upload, headers={"content-length": "1000"})[0] == 507


def test_browsers_are_told_to_ask_nobody_else(make):
    told = ask(make())[1]
    assert "default-src 'self'" in told["content-security-policy"]
    assert "http" not in told["content-security-policy"]
    assert told["x-content-type-options"] == "nosniff"
