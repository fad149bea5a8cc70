"""A command-line parser that says what was probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from recon.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser whose errors are :class:`~recon.errors.InputError` and name what was probably meant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*args, **kwargs)
        self.elsewhere: Callable[[str], str] = lambda flag: ""
        """From a flag that is unknown here to a hint where it is known in other circumstances, else nothing."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Look for misspelt flags first: argparse would speak of whatever they left missing."""
        for argument in args or ():
            flag = argument.split("=")[0]
            if argument == "--":
                break
            if flag.startswith("--") and flag not in self._option_string_actions:
                raise self._unknown("flag", flag, self._option_string_actions)
            if self._subparsers and not argument.startswith("-"):
                commands = self._subparsers._group_actions[0].choices or ()
                if argument not in commands:
                    raise self._unknown("command", argument, map(str, commands))
                break  # the rest is the command's
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and leaving."""
        raise InputError(message[:1].upper() + message[1:] + ".", f"See '{self.prog} --help'.", "usage")

    def _unknown(self, what: str, word: str, known: Iterable[str]) -> InputError:
        from recon.config import nearest  # loads pydantic: not for --help

        near = nearest(word, known)
        hint = self.elsewhere(word) or (f"Did you mean {near}?" if near else f"See '{self.prog} --help'.")
        return InputError(f"Unknown {what} {word}.", hint, f"unknown-{what}")
