"""Settings of the ``points`` pipeline: what the flags, the YAML file and the web form are made from."""

from __future__ import annotations

from typing import ClassVar, Literal

from recon.config import Config, setting


class PointsConfig(Config):
    """A point cloud to a mesh. The presets trade time for detail; measured times are in benchmarks/README.md."""

    presets: ClassVar = {
        "fast": {"resolution": 64, "points": 40_000, "steps": 100},
        "medium": {},
        "high": {"resolution": 224, "points": 400_000, "steps": 250},
    }

    points: int = setting(
        120_000, "Most points that are fitted; more are averaged together.", group="Points", ge=100, le=5_000_000
    )
    outliers: bool = setting(True, "Leave out points that lie apart from all others.", group="Points")
    normals: Literal["auto", "given", "estimated"] = setting(
        "auto",
        "Normals: the given ones, mended and turned outward; the given ones as they are; or estimated ones.",
        group="Points",
    )
    denoise: bool = setting(True, "Smooth the points as far as they are noisy; edges are kept.", group="Points")
    resolution: int = setting(
        128,
        "Most cells along the longest side; fewer are used where the points are too sparse for them.",
        group="Fitting",
        ge=8,
        le=320,
    )
    steps: int = setting(200, "Steps of optimisation.", group="Fitting", ge=0, le=100_000)
    seed: int = setting(0, "Seed of everything random.", group="Fitting", ge=0, le=2**31 - 1)
    open: bool = setting(
        False, "Cut away the surface where there are no points, instead of closing it.", group="Results"
    )
