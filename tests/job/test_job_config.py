"""Settings: precedence, conversion, and errors that name the setting, its value, its range and the nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml

from recon.config import Config, allowed, based, paths_of, read_yaml, resolve, setting, to_yaml, unused_environment
from recon.errors import InputError


class Example(Config):
    presets: ClassVar = {"fast": {"steps": 10}, "medium": {}, "high": {"steps": 1000}}

    steps: int = setting(100, "Steps.", group="Fitting", ge=1, le=5000)
    rate: float = setting(0.5, "Rate.", group="Fitting", gt=0, le=1)
    budget: int | None = setting(None, "Most splats.", ge=1, le=10**7)
    method: Literal["adam", "lm"] = setting("adam", "Method.")
    refine: bool = setting(True, "Refine.")
    formats: tuple[Literal["glb", "obj"], ...] = setting(("glb",), "Formats.")
    sizes: tuple[int, ...] = setting((), "Sizes.")
    photo: Path | None = setting(None, "A photo: with a colon.")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({}, 100),
        ({"preset": "fast"}, 10),
        ({"preset": "fast", "file": {"steps": 20}}, 20),
        ({"preset": "fast", "file": {"steps": 20}, "environment": {"RECON_STEPS": "30", "STEPS": "7"}}, 30),
        ({"file": {"steps": 20}, "environment": {"RECON_STEPS": "30"}, "flags": {"steps": "40"}}, 40),
    ],
)
def test_precedence(layers, expected):
    assert resolve(Example, **layers).steps == expected


def test_text_becomes_the_field_s_type():
    text = {"rate": "1e-3", "budget": "none", "refine": "false", "formats": "glb, obj", "sizes": "1,2"}
    config = resolve(Example, file={"budget": 5}, flags=text)
    assert (config.rate, config.budget, config.refine) == (0.001, None, False)
    assert (config.formats, config.sizes) == (("glb", "obj"), (1, 2))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"flags": {"steps": "0"}}, ["'steps'", "'0'", "from 1 to 5000"]),
        ({"flags": {"steps": "3.5"}}, ["'steps'", "'3.5'", "whole number"]),
        ({"file": {"rate": 0.0}, "file_name": "my.yaml"}, ["'rate'", "0.0", "my.yaml", "above 0 to 1"]),
        ({"environment": {"RECON_RATE": "nan"}}, ["'rate'", "environment"]),
        ({"flags": {"method": "adma"}}, ["'method'", "one of adam, lm", "Did you mean 'adam'"]),
        ({"flags": {"budget": "0"}}, ["'budget'", "or none"]),
        ({"flags": {"formats": "glb,stl"}}, ["'formats'", "any of glb, obj"]),
        ({"flags": {"stpes": 1}}, ["'stpes'", "Did you mean 'steps'"]),
        ({"file": {"qqq": 1}}, ["'qqq'", "method"]),
        ({"preset": "slow"}, ["'slow'", "fast, medium, high"]),
        ({"flags": {"steps": "x", "rate": "y"}}, ["'steps'", "'rate'"]),
    ],
)
def test_errors_say_what_where_and_what_instead(layers, words):
    with pytest.raises(InputError) as caught:
        resolve(Example, **layers)
    text = f"{caught.value.message} {caught.value.hint}"
    assert [word for word in words if word not in text] == []


def test_yaml_round_trip_with_descriptions(tmp_path):
    config = resolve(Example, flags={"steps": 7, "photo": "a: b, [c].jpg", "sizes": (3, 4)})
    text = to_yaml(config, {"egregium": 1, "input": "/tmp/x # y"})
    assert "# Steps. (a whole number from 1 to 5000)\nsteps: 7\n" in text
    (tmp_path / "c.yaml").write_text(text)
    values = read_yaml(tmp_path / "c.yaml")
    assert (values.pop("egregium"), values.pop("input")) == (1, "/tmp/x # y")
    assert resolve(Example, file=values) == config
    assert all(len(line) < 200 for line in text.splitlines())
    assert yaml.safe_load(text)["formats"] == ["glb"]


@pytest.mark.parametrize("content", [b"steps: [1", b"- 1\n- 2", b"\xff\xfe\x00", b"just words", b"1: 2"])
def test_bad_yaml_is_told(tmp_path, content):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"c\.yaml"):
        read_yaml(tmp_path / "c.yaml")
    with pytest.raises(InputError, match=r"no\.yaml"):
        read_yaml(tmp_path / "no.yaml")


def test_unused_environment_is_told():
    (warning,) = unused_environment(Example, {"RECON_STEP": "1", "RECON_RATE": "1", "RECON_PRESET": "fast"}, ["preset"])
    assert "RECON_STEP " in warning
    assert "RECON_STEPS" in warning


def test_allowed_in_words():
    fields = Example.model_fields
    assert allowed(fields["budget"]) == "a whole number from 1 to 10000000, or none"
    assert allowed(fields["formats"]) == "any of glb, obj, separated by commas"


def test_relative_paths_begin_where_they_were_written(tmp_path):
    values = {"photo": "a/b.png", "method": "lm", "other": "a/b.png"}
    assert based(Example, values, tmp_path) == {**values, "photo": tmp_path / "a/b.png"}
    assert paths_of(resolve(Example, flags=based(Example, {"photo": "c.png"}, tmp_path))) == {
        "photo": tmp_path / "c.png"
    }
    assert paths_of(resolve(Example)) == {}
    assert based(Example, {"photo": "none"}, tmp_path) == {"photo": "none"}
    assert based(Example, {"photo": "/c.png"}, tmp_path) == {"photo": Path("/c.png")}


def test_a_declaration_must_be_explainable():
    with pytest.raises(TypeError, match="description"):
        type("Bare", (Config,), {"__annotations__": {"steps": int}, "steps": 1})
    with pytest.raises(TypeError, match="limit"):
        type("Endless", (Config,), {"__annotations__": {"steps": int}, "steps": setting(1, "Steps.", ge=0)})
    with pytest.raises(TypeError, match="reserved"):
        type("Taken", (Config,), {"__annotations__": {"preset": str}, "preset": setting("", "Preset.")})
    with pytest.raises(InputError, match="nothing"):
        type("Off", (Config,), {"__annotations__": {}, "presets": {"medium": {"nothing": 1}}})


def test_settings_do_not_change_under_a_stage():
    with pytest.raises(ValueError, match="frozen"):
        resolve(Example).steps = 3


def test_chosen_is_what_no_preset_says():
    assert resolve(Example, preset="high").chosen(Example.model_fields) == []
    assert resolve(Example, preset="fast", flags={"steps": 100, "rate": 0.1}).chosen(("steps", "rate")) == ["rate"]
