"""What stands in front of the page: who may come in, and which addresses there are at all.

Everything passes here before Gradio sees it. With a password, each request needs the cookie that the login form gives,
or the password itself by HTTP Basic (for programs). Without one only this machine is listened to, and then only
requests that call it by its own name, so that no foreign page reaches it through a name of its own (DNS rebinding).
Refused for everybody: Gradio's ways to fetch other addresses, and uploads that the disk has no room for.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qs, unquote

from recon.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "egregium"
GUESS_SECONDS = 1.0
"""How long a wrong password has to wait for its answer."""

FORM_BYTES = 4096

STARTUP = "/gradio_api/startup-events"
"""What Gradio asks of itself, without a password, before it says that the page is there; it answers "true"."""

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""The browser itself refuses to ask anybody else, whatever the page should try."""

_LOGIN = Template(
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>Egregium</title><style>:root{color-scheme:light dark}body{font:1rem system-ui,sans-serif;display:grid;"
    "place-items:center;min-height:90vh;margin:0}form{display:grid;gap:.75rem;width:min(20rem,90vw)}input,button{font:"
    "inherit;padding:.6rem .8rem;border-radius:.4rem;border:1px solid #8888}button{background:#1d4ed8;color:#fff;"
    "border:0}p{color:#dc2626;margin:0}</style><form method=post action=login><h1>Egregium</h1>"
    "<label for=p>The password that the page was started with</label>"
    "<input id=p name=password type=password autofocus autocomplete=current-password><p role=alert>$note</p>"
    "<button>Enter</button></form></html>"
)


class Gate:
    """ASGI middleware.

    Args:
        inner: what it guards.
        limits: of uploads and the disk.
        password: what visitors must give; None lets everybody in who can reach it.
        names: host names by which it may be called; empty for any.
        jobs: the folder whose disk uploads fill.
    """

    def __init__(
        self, inner: Application, limits: Settings, password: str | None, names: tuple[str, ...], jobs: Path
    ) -> None:
        self._inner, self._limits, self._password, self._names, self._jobs = inner, limits, password, names, jobs
        self._token = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if self._names and _host(headers.get("host", "")) not in self._names:
            await _answer(send, 421, "This page is not called by that name.")
        elif self._password is not None and scope["method"] == "POST" and path == "/login":
            await self._login(headers, receive, send)
        elif self._password is not None and path != STARTUP and not self._known(headers):
            if "authorization" in headers:  # a guess
                await asyncio.sleep(GUESS_SECONDS)
            wants_page = scope["method"] == "GET" and path == "/" and "text/html" in headers.get("accept", "")
            await _answer(send, 401, _LOGIN.substitute(note="") if wants_page else "Password needed.", html=wants_page)
        elif _leads_outside(path):
            await _answer(send, 403, "Nothing outside of this page is fetched.")
        elif path.endswith("/upload") and (refusal := self._no_room(headers)):
            await _answer(send, *refusal)
        else:
            await self._inner(scope, receive, _with_headers(send))

    def _known(self, headers: dict[str, str]) -> bool:
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE and secrets.compare_digest(value.encode(), self._token.encode()):
                return True
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            given = base64.b64decode(value, validate=True).partition(b":")[2]
        except ValueError:
            return False
        return self._right(given)

    def _right(self, given: bytes) -> bool:
        return secrets.compare_digest(given, (self._password or "").encode())

    async def _login(self, headers: dict[str, str], receive: Receive, send: Send) -> None:
        body = b""
        while len(body) < FORM_BYTES:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        given = parse_qs(body.decode("latin-1")).get("password", [""])[0].encode()
        page = "text/html" in headers.get("accept", "")
        if not self._right(given):
            await asyncio.sleep(GUESS_SECONDS)
            text = _LOGIN.substitute(note="That is not it.") if page else '{"detail": "Incorrect credentials."}'
            await _answer(send, 401 if page else 400, text, html=page)
            return
        cookie = (b"set-cookie", f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict".encode())
        if page:
            await _answer(send, 303, "", extra=[cookie, (b"location", b"./")])
        else:  # gradio_client
            await _answer(send, 200, '{"success": true}', extra=[cookie, (b"content-type", b"application/json")])

    def _no_room(self, headers: dict[str, str]) -> tuple[int, str] | None:
        size = headers.get("content-length", "")
        if not size.isdigit():
            return 411, "Uploads must say how large they are."
        if int(size) > self._limits.max_upload_gb * 1e9:
            return 413, f"Uploads may hold {self._limits.max_upload_gb:g} GB."
        if shutil.disk_usage(self._jobs).free - int(size) < self._limits.min_free_gb * 1e9:
            return 507, "The disk has no room for that."
        return None


def _host(header: str) -> str:
    """Return the name in a Host header, without its port."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
    return name.strip("[]").lower()


def _leads_outside(path: str) -> bool:
    """Whether Gradio would fetch another address for this path."""
    while (plain := unquote(path)) != path:
        path = plain
    _, fetches, target = path.partition("file=")
    return "proxy=" in path or (bool(fetches) and "://" in target) or (bool(fetches) and ":/" in target)


def _with_headers(send: Send) -> Send:
    async def send_more(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            extra = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
            extra += [] if b"content-security-policy" in names else [(b"content-security-policy", POLICY.encode())]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return send_more


async def _answer(
    send: Send, status: int, text: str, html: bool = False, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = (text if html or text.startswith("{") else escape(text)).encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store"), *(extra or [])]
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"text/html; charset=utf-8" if html else b"text/plain; charset=utf-8"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
