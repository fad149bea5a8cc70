"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import recon  # noqa: F401  before torch: how its threads wait is settled when it is loaded
from recon.settings import settings


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that changes settings of this process: ``limits(max_files=3)``."""

    def change(**values: Any) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"RECON_{name.upper()}", str(value))
        settings.cache_clear()

    yield change
    settings.cache_clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real captures that may lie beside the project; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real captures (../shared/data) are not here")
    return folder
