"""Settings: one declaration per pipeline, from which the flags, the YAML file and the web form are all made.

A pipeline's settings are a subclass of :class:`Config` whose fields are made by :func:`setting`::

    class SplatsConfig(Config):
        presets: ClassVar = {"fast": {"iterations": 800}, "medium": {}, "high": {"iterations": 6000}}
        iterations: int = setting(2500, "Steps of optimisation.", group="Fitting", ge=1, le=100_000)

Where several sources set the same field, the first of these wins: a flag, the environment (``RECON_ITERATIONS``),
the YAML file, the preset, the default.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from recon.errors import InputError

ENVIRONMENT = "RECON_"
"""Prefix of the environment variables that set something."""

DEFAULT_PRESET = "medium"

RESERVED = frozenset(
    (
        "egregium",
        "pipeline",
        "preset",
        "device",
        "input",
        "out",
        "resume",
        "json",
        "config",
        "events",
        "help",
        "settings",
    )
)
"""Names that mean something else on the command line, in the YAML file or in the Python API."""

_Config = TypeVar("_Config", bound="Config")


def setting(default: Any, description: str, *, group: str = "Settings", **limits: Any) -> Any:
    """Declare a field of a :class:`Config`.

    Args:
        default: the value where nothing else is said.
        description: what it does, one sentence; it is the help text everywhere.
        group: heading under which the help and the form show it.
        limits: pydantic's ``ge``, ``gt``, ``le``, ``lt``, ``multiple_of``, ``min_length``, ``max_length``.
    """
    return Field(default, description=description, json_schema_extra={"group": group}, **limits)


class Config(BaseModel):
    """Base of every pipeline's settings: immutable, no unknown names, no NaN.

    Fields may be ``bool``, ``int``, ``float``, ``str``, ``Path``, a ``Literal``, a ``tuple`` of one of these with
    any length, or any of them ``| None``. Numbers need a lower and an upper limit (a form draws a slider from them).
    A pipeline's ``Path`` is something that it reads, which must exist, and stands for its content.

    Attributes:
        presets: overrides by preset name, checked against the fields when the class is made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"fast": {}, "medium": {}, "high": {}}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a declaration that could not be shown or explained to a person."""
        for name, field in cls.model_fields.items():
            if name in RESERVED:
                raise TypeError(f"{cls.__name__}.{name}: the name is reserved")
            if not field.description:
                raise TypeError(f"{cls.__name__}.{name} needs a description")
            limits = {
                key for m in field.metadata for key in ("ge", "gt", "le", "lt") if getattr(m, key, None) is not None
            }
            if kind(field) in (int, float) and not (limits & {"ge", "gt"} and limits & {"le", "lt"}):
                raise TypeError(f"{cls.__name__}.{name} needs a lower and an upper limit")
        if DEFAULT_PRESET not in cls.presets:
            raise TypeError(f"{cls.__name__}.presets needs {DEFAULT_PRESET!r}")
        for preset in cls.presets:
            resolve(cls, preset=preset)

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Return those of the fields that somebody has chosen: their value is of no preset."""
        plain = [resolve(type(self), preset=preset) for preset in self.presets]
        return [name for name in names if all(getattr(self, name) != getattr(one, name) for one in plain)]


def kind(field: FieldInfo) -> Any:
    """Return a field's type without ``| None``."""
    annotation = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def optional(field: FieldInfo) -> bool:
    """Return whether a field may be None."""
    return type(None) in get_args(field.annotation)


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the words a field (or each item of a tuple) is chosen from; empty when it is free."""
    inner = kind(field)
    if get_origin(inner) is tuple:
        inner = get_args(inner)[0]
    return tuple(str(a) for a in get_args(inner)) if get_origin(inner) is Literal else ()


def allowed(field: FieldInfo) -> str:
    """Return what a field accepts, in words: ``"a whole number from 1 to 100000"``."""
    inner = kind(field)
    several = get_origin(inner) is tuple
    if words := choices(field):
        text = ("any of " if several else "one of ") + ", ".join(words)
    else:
        item = get_args(inner)[0] if several else inner
        names = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
        text = ("a list of " if several else "") + names.get(item, "text") + limits(field)
    if several:
        text += ", separated by commas"
    return text + (", or none" if optional(field) else "")


def limits(field: FieldInfo) -> str:
    """Return a field's range in words with a leading space, ``" from 1 to 100000"``; empty without limits."""
    text = ""
    for key, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")):
        for entry in field.metadata:
            if (value := getattr(entry, key, None)) is not None:
                text += f" {word} {value:g}" if isinstance(value, float) else f" {word} {value}"
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word most like ``word``, or an empty string when none is near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def resolve(
    config_class: type[_Config],
    *,
    preset: str = DEFAULT_PRESET,
    file: Mapping[str, Any] | None = None,
    file_name: str = "the settings file",
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> _Config:
    """Merge all sources of settings: flags > environment > file > preset > default.

    Args:
        config_class: the declaration.
        preset: name of one of its presets.
        file: what the YAML file sets, see :func:`read_yaml`; ``file_name`` is for messages.
        environment: usually ``os.environ``; of it only ``RECON_<FIELD>`` is read.
        flags: by field name; text is converted to the field's type.

    Raises:
        InputError: unknown preset or setting (naming the nearest), or a value out of its range.
    """
    if preset not in config_class.presets:
        raise InputError(
            f"Unknown preset '{preset}'.", f"Choose one of: {', '.join(config_class.presets)}.", "unknown-preset"
        )
    fields = config_class.model_fields
    named = {f"{ENVIRONMENT}{name.upper()}": name for name in fields}
    from_environment = {named[key]: value for key, value in (environment or {}).items() if key in named}
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (f" in preset {preset}", config_class.presets[preset]),
        (f" in {file_name}", file or {}),
        (" in the environment", from_environment),
        ("", flags or {}),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for name, value in layer.items():
            if name not in fields:
                near = nearest(name, fields)
                hint = f"Did you mean '{near}'?" if near else f"The settings are: {', '.join(sorted(fields))}."
                raise InputError(f"Unknown setting '{name}'{origin}.", hint, "unknown-setting")
            values[name], origins[name] = _parse(fields[name], value), origin
    try:
        return config_class(**values)
    except ValidationError as error:
        raise _explain(error, config_class, origins) from None


def based(config_class: type[Config], values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return settings with the relative paths among them taken from the folder ``base``; nothing is checked."""
    result = dict(values)
    for name in path_names(config_class):
        value = _parse(config_class.model_fields[name], values.get(name))
        if isinstance(value, str | Path):
            result[name] = base.absolute() / value
    return result


def path_names(config_class: type[Config]) -> list[str]:
    """Return the names of the settings that may name something on the disk."""
    return [name for name, field in config_class.model_fields.items() if kind(field) is Path]


def paths_of(config: Config) -> dict[str, Path]:
    """Return the settings that name something, by their names."""
    return {name: value for name, value in config if isinstance(value, Path)}


def unused_environment(config_class: type[Config], environment: Mapping[str, str], own: Iterable[str]) -> list[str]:
    """Return warnings about ``RECON_…`` variables that set nothing; ``own`` are known names that are not settings."""
    known = {f"{ENVIRONMENT}{name.upper()}" for name in (*config_class.model_fields, *own)}
    warnings = []
    for key in sorted(environment):
        if key.startswith(ENVIRONMENT) and key not in known:
            near = nearest(key, known)
            warnings.append(f"{key} sets nothing here" + (f"; did you mean {near}?" if near else "."))
    return warnings


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of names to values from a YAML file.

    Raises:
        InputError: the file is missing, unreadable, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.", "Check the path.", "no-config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path} is not valid YAML{where}.", "Write one 'name: value' a line.", "bad-config") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} is not a list of settings.", "Write one 'name: value' a line.", "bad-config")
    return content


def to_yaml(config: Config, header: Mapping[str, Any]) -> str:
    """Return ``header`` and all settings as YAML with each setting's description and range beside it."""
    lines = [_yaml_line(name, value) for name, value in header.items()]
    values = config.model_dump(mode="json")
    for group, names in groups(type(config)).items():
        lines.append(f"\n# --- {group} ---")
        for name in names:
            field = type(config).model_fields[name]
            lines += [f"# {field.description} ({allowed(field)})", _yaml_line(name, values[name])]
    return "\n".join(lines) + "\n"


def groups(config_class: type[Config]) -> dict[str, list[str]]:
    """Return the field names by group, in declaration order."""
    result: dict[str, list[str]] = {}
    for name, field in config_class.model_fields.items():
        extra = field.json_schema_extra
        group = str(extra.get("group", "Settings")) if isinstance(extra, dict) else "Settings"
        result.setdefault(group, []).append(name)
    return result


def _yaml_line(name: str, value: Any) -> str:
    item = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**6)  # "[value]": on one line
    return f"{name}: {item.strip()[1:-1]}"


def _parse(field: FieldInfo, value: Any) -> Any:
    """Give text from a flag or the environment the shape its field expects; pydantic converts the rest."""
    if isinstance(value, str):
        if optional(field) and value.strip().lower() in ("none", "null", ""):
            return None
        if get_origin(kind(field)) is tuple:
            return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _explain(error: ValidationError, config_class: type[Config], origins: Mapping[str, str]) -> InputError:
    messages = []
    hint = "See 'recon run --pipeline NAME --help' for every setting and its range."
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if not name:  # a rule over several settings, which explains itself
            messages.append(problem["msg"].removeprefix("Value error, "))
            continue
        field = config_class.model_fields[name]
        value = problem["input"]
        rule = f"it must be {allowed(field)}"
        if problem["type"] == "value_error":  # a rule of one setting, which explains itself
            rule = problem["msg"].removeprefix("Value error, ")
        messages.append(f"Setting '{name}' is {value!r}{origins.get(name, '')}; {rule}.")
        if near := nearest(str(value), choices(field)):
            hint = f"Did you mean '{near}'?"
    return InputError(" ".join(dict.fromkeys(messages)), hint, "bad-setting")
