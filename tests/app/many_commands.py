"""Runs ``recon`` once for each argument list on stdin and prints what each did; loading torch once is enough."""

from __future__ import annotations

import json
import os
import sys
import tempfile

from app.cli import main


def run(arguments: list[str]) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of one command; those of libraries below Python too."""
    own = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            code = main(arguments)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(own, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return code, texts[0], texts[1]


if __name__ == "__main__":
    commands = json.load(sys.stdin)
    print(json.dumps({name: run(arguments) for name, arguments in commands.items()}))
