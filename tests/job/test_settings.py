"""The machine's settings: where they come from, and which source wins."""

from __future__ import annotations

import pytest

from recon import pipelines
from recon.errors import InputError
from recon.settings import Settings, as_environment, load, origins


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default(tmp_path):
    file = tmp_path / "egregium" / "settings.yaml"
    file.parent.mkdir()
    file.write_text("port: 1\nmax_queue: 2\nmax_files: 3\n")
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "RECON_PORT": "4", "RECON_MAX_QUEUE": "5"}
    found = load({"port": 6}, environment)
    assert (found.port, found.max_queue, found.max_files, found.host) == (6, 5, 3, "127.0.0.1")
    told = origins(environment)
    assert told["max_queue"] == ("5", "RECON_MAX_QUEUE")
    assert told["max_files"] == ("3", str(file))
    assert told["host"] == ("127.0.0.1", "default")


def test_a_named_file_must_be_there_and_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"Cannot read .*absent\.yaml"):
        load(environment={"RECON_SETTINGS": str(tmp_path / "absent.yaml")})
    file = tmp_path / "own.yaml"
    file.write_text("max_filse: 3\n")
    with pytest.raises(InputError, match="max_filse") as caught:
        load(environment={"RECON_SETTINGS": str(file)})
    assert "max_files" in caught.value.hint


def test_the_password_is_neither_shown_nor_handed_on():
    environment = {"RECON_PASSWORD": "word", "XDG_CONFIG_HOME": "/nowhere"}
    assert origins(environment)["password"] == ("set", "RECON_PASSWORD")
    assert "word" not in str(as_environment(load(environment=environment)))


def test_another_process_gets_the_same_settings():
    chosen = load({"max_files": 7, "min_free_gb": 0.5, "jobs": "some where"}, {"XDG_CONFIG_HOME": "/nowhere"})
    assert load(environment={**as_environment(chosen), "XDG_CONFIG_HOME": "/nowhere"}) == chosen


def test_no_pipeline_has_a_setting_of_the_same_name():
    for name in pipelines.names():
        assert not set(Settings.model_fields) & set(pipelines.get(name).config.model_fields)
