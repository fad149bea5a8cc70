"""What tests of several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

import recon  # noqa: F401  before torch: how its threads wait is settled when it is loaded


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real captures that may lie beside the project; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real captures (../shared/data) are not here")
    return folder
