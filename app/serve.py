"""``recon serve``: the web page as a server, on this machine alone unless there is a password."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from app.lock import held
from recon.errors import InputError
from recon.events import Events
from recon.settings import Settings, as_environment, settings

if TYPE_CHECKING:
    from app.page import Page

ASSETS = Path(__file__).parents[1] / "assets"
LOCAL = ("127.0.0.1", "localhost", "::1")
"""What this machine calls itself."""


def serve(chosen: Settings) -> None:
    """Show the page until Ctrl-C or SIGTERM.

    Args:
        chosen: where to listen, the jobs' folder, the password, and the limits.

    Raises:
        InputError: no password where one is needed, the port is taken, or the folder cannot be used.
    """
    check_address(chosen.host, chosen.port, chosen.password)
    from app.signals import stoppable

    stop = threading.Event()
    with _prepared(chosen.jobs.absolute()) as folder, stoppable(Events(), stop.set):
        from app.drafts import Drafts
        from app.inspector import Inspector
        from app.jobs import Jobs
        from app.page import Page

        os.environ.update(as_environment(chosen))  # what was given by flag holds for all that asks for settings here
        settings.cache_clear()
        jobs = Jobs(folder, chosen)
        inspector = Inspector(jobs.environment())
        try:
            page = Page(jobs, Drafts(jobs.own / "drafts", jobs.uploads, inspector), samples())
            with launched(page, chosen) as address:
                inspector.warm()
                told = f"Egregium is at {address} and its jobs in {folder}. Ctrl-C stops it."
                print(told, file=sys.stderr, flush=True)
                stop.wait()
        finally:
            inspector.close()
            if jobs.close():
                print("The reconstruction was stopped; it goes on when the page is served again.", file=sys.stderr)


def samples() -> dict[str, Path]:
    """Return the captures that come with Egregium, by name; none where it was installed without them."""
    found = {"still_life": ASSETS / "still_life", "octopus": ASSETS / "scan" / "octopus.ply"}
    return {name: path for name, path in found.items() if path.exists()}


def check_address(host: str, port: int, password: str | None) -> None:
    """Refuse to listen where others could reach the page without a password, or where something else listens.

    Raises:
        InputError: codes ``"no-password"``, ``"bad-port"``, ``"port-taken"``.
    """
    if password is not None and not password:
        raise InputError("The password is empty.", "Give --password some text.", "no-password")
    if not _is_loopback(host) and password is None:
        raise InputError(
            f"Others could use this machine through {host}, and there is no password.",
            "Add --password TEXT, or leave --host out to listen on this machine alone.",
            "no-password",
        )
    if not 1 <= port <= 65_535:
        raise InputError(f"{port} is no port.", "Give --port a number from 1 to 65535.", "bad-port")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise _taken(host, port, str(error.strerror)) from None


def _taken(host: str, port: int, why: str) -> InputError:
    return InputError(
        f"Cannot listen on {host}, port {port}: {why}.",
        "Give --port another number, such as 7861; or --host an address of this machine.",
        "port-taken",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def launched(page: Page, chosen: Settings) -> Iterator[str]:
    """Show ``page`` until the block ends; give its address."""
    from app.page import build

    import gradio as gr  # isort: skip  # its settings come from the environment, which is set by now
    from starlette.middleware import Middleware

    from app.files import route
    from app.gate import Gate

    blocks = build(page)
    blocks.queue(default_concurrency_limit=8)
    names = (*LOCAL, chosen.host) if _is_loopback(chosen.host) and chosen.password is None else ()
    gate = Middleware(Gate, limits=chosen, password=chosen.password, names=names, jobs=page.jobs.folder)
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    try:
        _, address, _ = blocks.launch(
            server_name=chosen.host,
            server_port=chosen.port,
            app_kwargs={"middleware": [gate], "routes": [route(page.jobs)]},
            max_file_size=int(chosen.max_upload_gb * 1e9),
            allowed_paths=[],
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            prevent_thread_lock=True,
            quiet=True,
            theme=gr.themes.Default(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"]).set(
                body_text_color_subdued="*neutral_600",
                block_info_text_color="*neutral_600",
                button_primary_background_fill="*primary_700",
                button_primary_background_fill_hover="*primary_800",
            ),
            css_paths=Path(__file__).with_name("page.css"),
        )
    except OSError:  # somebody was quicker
        blocks.close(verbose=False)
        raise _taken(chosen.host, chosen.port, "Address already in use") from None
    try:
        yield address
    finally:
        blocks.close(verbose=False)


@contextmanager
def _prepared(jobs: Path) -> Iterator[Path]:
    """Make the jobs folder, keep a second server out of it, and prepare Gradio's surroundings."""
    own = jobs / ".page"
    uploads, empty = own / "uploads", own / "empty"
    with ExitStack() as stack:
        try:
            own.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(own / "lock"))
        except BlockingIOError:
            raise InputError(
                f"Another 'recon serve' shows the jobs of {jobs}.", "Use that one, or give --jobs another.", "jobs-busy"
            ) from None
        except OSError as error:
            raise InputError(
                f"{jobs} cannot be used for jobs: {error.strerror}.", "Give --jobs another folder.", "bad-jobs"
            ) from None
        stack.callback(shutil.rmtree, uploads, ignore_errors=True)
        for folder in (uploads, empty):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)
        os.chdir(empty)  # Gradio would hand out files of the working directory
        yield jobs
