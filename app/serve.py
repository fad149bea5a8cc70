"""``recon serve``: the web page as a server, on this machine alone unless there is a password."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recon.errors import InputError
from recon.events import Events

if TYPE_CHECKING:
    from app.page import Page

SAMPLE = Path(__file__).parents[1] / "assets" / "still_life"


def serve(host: str, port: int, jobs: Path, password: str | None) -> None:
    """Show the page until Ctrl-C or SIGTERM.

    Args:
        host: address to listen on.
        port: TCP port.
        jobs: folder of the jobs; made if need be.
        password: what browsers have to give; needed wherever others could reach the page.

    Raises:
        InputError: no password where one is needed, the port is taken, or the folder cannot be used.
    """
    check_address(host, port, password)
    from app.signals import stoppable

    stop = threading.Event()
    with _prepared(jobs.absolute()) as folder, stoppable(Events(), stop.set):
        from app.jobs import Jobs
        from app.page import Page
        from recon import pipelines

        queue = Jobs(folder)
        page = Page(queue, pipelines.get(pipelines.DEFAULT), SAMPLE if (SAMPLE / "transforms.json").exists() else None)
        with launched(page, host, port, password) as address:
            print(f"Egregium is at {address} and its jobs in {folder}. Ctrl-C stops it.", file=sys.stderr, flush=True)
            stop.wait()
            if queue.close():
                print("The reconstruction was stopped; press Resume on the page to go on.", file=sys.stderr)


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
        raise InputError(
            f"Cannot listen on {host}, port {port}: {error.strerror}.",
            "Give --port another number, such as 7861; or --host an address of this machine.",
            "port-taken",
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def launched(page: Page, host: str, port: int, password: str | None) -> Iterator[str]:
    """Show ``page`` until the block ends; give its address."""
    from app.page import build

    import gradio as gr  # isort: skip  # its settings come from the environment, which is set by now

    from app.uploads import MAX_BYTES

    blocks = build(page)
    blocks.queue(default_concurrency_limit=8, api_open=False)
    auth: Callable[[str, str], bool] | None = None
    if password is not None:
        auth = lambda _, given: secrets.compare_digest(given.encode(), password.encode())  # noqa: E731
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            auth_message="Any user name, and the password that 'recon serve' was given.",
            max_file_size=MAX_BYTES,
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
        yield address
    finally:
        blocks.close(verbose=False)


@contextmanager
def _prepared(jobs: Path) -> Iterator[Path]:
    """Make the jobs folder, keep a second server out of it, and prepare Gradio's surroundings."""
    own = jobs / ".page"
    uploads = own / "uploads"
    try:
        own.mkdir(parents=True, exist_ok=True)
        lock = os.open(own / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"{jobs} cannot be used for jobs: {error.strerror}.", "Give --jobs another folder.", "bad-jobs"
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another 'recon serve' shows the jobs of {jobs}.", "Use that one, or give --jobs another.", "jobs-busy"
            ) from None
        shutil.rmtree(uploads, ignore_errors=True)
        uploads.mkdir()
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)
        os.chdir(uploads)  # Gradio would hand out files of the working directory
        yield jobs
    finally:
        os.close(lock)
        shutil.rmtree(uploads, ignore_errors=True)
