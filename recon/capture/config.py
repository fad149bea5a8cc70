"""Settings that every pipeline from photos has: what of them is looked at, and the seed."""

from __future__ import annotations

from typing import Literal

from recon.config import Config, setting


class PhotosConfig(Config):
    """Base of the settings of pipelines that start from photos."""

    max_side: int = setting(
        800, "Longest side, in pixels, of the photos as they are fitted.", group="Photos", ge=32, le=8192
    )
    background: Literal["auto", "black", "white"] = setting(
        "auto", "Colour behind the scene; auto is white for cut-out photos and black otherwise.", group="Photos"
    )
    hold_out: bool = setting(
        True,
        "Keep every 8th photo out of the fit, to measure the result on; a capture's own test set always is.",
        group="Photos",
    )
    seed: int = setting(0, "Seed of everything random.", group="Fitting", ge=0, le=2**31 - 1)
