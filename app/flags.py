"""Settings as command-line flags: made from the one declaration of each pipeline's config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from recon.config import DEFAULT_PRESET, Config, choices, groups, kind, limits, optional

PREFIX = "setting:"
"""Of the entries in argparse's namespace that are settings."""


def add_settings(parser: argparse.ArgumentParser, config: type[Config]) -> None:
    """Add a flag for every field of ``config``, in its groups, with its description, range and defaults as help."""
    for title, names in groups(config).items():
        group = parser.add_argument_group(title)
        for name in names:
            field = config.model_fields[name]
            options: dict[str, Any] = {
                "dest": PREFIX + name,
                "default": argparse.SUPPRESS,
                "help": f"{field.description} ({_facts(config, name)})".replace("%", "%%"),
            }
            if kind(field) is bool and not optional(field):
                options["action"] = argparse.BooleanOptionalAction
            else:
                options["metavar"] = _metavar(field)
            group.add_argument(f"--{name.replace('_', '-')}", **options)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given, by field name, as they were written."""
    return {name.removeprefix(PREFIX): value for name, value in vars(arguments).items() if name.startswith(PREFIX)}


def _facts(config: type[Config], name: str) -> str:
    """Return range and defaults in a few words: ``"1 to 100000; default 2500, fast 800"``."""
    field = config.model_fields[name]
    default = field.get_default()
    facts = [limits(field).strip().removeprefix("from ")]
    base = config.presets[DEFAULT_PRESET].get(name, default)
    presets = [f"{preset} {_show(values.get(name, default))}" for preset, values in config.presets.items()]
    differ = [
        text for text, values in zip(presets, config.presets.values(), strict=True) if values.get(name, default) != base
    ]
    facts.append(", ".join([f"default {_show(base)}", *differ]))
    return "; ".join(fact for fact in facts if fact)


def _show(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ",".join(map(_show, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metavar(field: FieldInfo) -> str:
    words = choices(field)
    inner = kind(field)
    several = get_origin(inner) is tuple
    item = get_args(inner)[0] if several else inner
    text = "|".join(words) or {int: "N", float: "X", Path: "PATH", bool: "on|off"}.get(item, "TEXT")
    return f"{text},…" if several else text
