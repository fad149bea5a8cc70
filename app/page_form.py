"""The settings of a pipeline as a form, made from the one declaration of its config."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from recon.config import Config, choices, groups, kind, limits, optional, resolve

if TYPE_CHECKING:
    from gradio.components import FormComponent

SLIDER = 100
"""Up to so many steps a number is a slider; beyond it one could not hit a value."""
NONE = "none"


def preset_values(config: type[Config], preset: str) -> dict[str, Any]:
    """Return what the form shows for a preset: its values, and the server's environment above them."""
    return dict(resolve(config, preset=preset, environment=os.environ))


def shown_names(config: type[Config]) -> list[str]:
    """Return the fields that the form shows, by group: all but paths, which only the server's owner may name."""
    names = [name for group in groups(config).values() for name in group]
    return [name for name in names if _item(config.model_fields[name]) is not Path]


def make_fields(config: type[Config], preset: str) -> list[FormComponent]:
    """Make a field for each of :func:`shown_names` where a Gradio page is being built."""
    import gradio as gr

    values = preset_values(config, preset)
    shown, fields = shown_names(config), []
    for title, names in groups(config).items():
        if not (here := [name for name in names if name in shown]):
            continue
        gr.Markdown(f"#### {title}")
        with gr.Group():
            fields += [_field(name, config.model_fields[name], values[name]) for name in here]
    return fields


def to_form(config: type[Config], values: Mapping[str, Any]) -> list[Any]:
    """Return the fields' values, in the order of :func:`shown_names`."""
    return [_show(config.model_fields[name], values[name]) for name in shown_names(config)]


def from_form(config: type[Config], values: Sequence[Any]) -> dict[str, Any]:
    """Return the settings that the fields' values mean; nothing is checked."""
    settings = dict(zip(shown_names(config), values, strict=True))
    for name, value in settings.items():
        field = config.model_fields[name]
        if value == NONE and optional(field):
            settings[name] = None
        elif isinstance(value, list):
            settings[name] = tuple(value)
    return settings


def _field(name: str, field: FieldInfo, value: Any) -> FormComponent:
    import gradio as gr

    limit = limits(field).strip().removeprefix("from ")
    common: dict[str, Any] = {
        "label": name.replace("_", " ").capitalize().replace("Sh ", "SH ").replace("Ssim ", "SSIM "),
        "info": f"{field.description}{f' ({limit})' if limit else ''}",
        "value": _show(field, value),
        "interactive": True,
    }
    inner, words = kind(field), choices(field)
    if words and get_origin(inner) is tuple:
        return gr.CheckboxGroup(choices=list(words), **common)
    if words:
        return gr.Dropdown(choices=[*words, *([NONE] if optional(field) else [])], **common)
    if inner is bool and not optional(field):
        return gr.Checkbox(**common)
    if inner in (int, float) and not optional(field):
        low, high = _bounds(field)
        step = 1 if inner is int else (high - low) / SLIDER
        if high - low < SLIDER:
            return gr.Slider(low, high, step=step, **common)
        return gr.Number(precision=0 if inner is int else None, **common)
    return gr.Textbox(placeholder=NONE if optional(field) else "", max_lines=1, **common)


def _show(field: FieldInfo, value: Any) -> Any:
    if value is None:
        return NONE if choices(field) else ""
    if isinstance(value, tuple):
        return list(value) if choices(field) else ",".join(map(str, value))
    if isinstance(value, bool | int | float) and not optional(field):
        return value
    return str(value)


def _bounds(field: FieldInfo) -> tuple[float, float]:
    found = {key: getattr(m, key) for m in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
    return found.get("ge", found.get("gt")), found.get("le", found.get("lt"))  # type: ignore[return-value]


def _item(field: FieldInfo) -> Any:
    inner = kind(field)
    return get_args(inner)[0] if get_origin(inner) is tuple else inner
