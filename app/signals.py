"""Ctrl-C and SIGTERM as a request to stop, and a second one as an order."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from recon.events import Events

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable(events: Events, told: Callable[[], None]) -> Iterator[None]:
    """Cancel ``events`` and call ``told`` at the first signal; end the process at the second.

    Python runs a signal handler only between two of its instructions, which a long native call delays. So a thread
    reads the signals from the descriptor to which the interpreter's C handler writes them at once.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        with suppress(OSError):
            while number := reader.recv(1):
                if number[0] not in SIGNALS:
                    continue
                if events.cancelled:
                    if sys.stderr.isatty():
                        os.write(2, b"\x1b[?25h\n")  # the bars hid the cursor
                    os._exit(130)  # a job may be killed at any instant
                events.cancel()
                told()

    handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()
        thread.join(1)
        reader.close()
