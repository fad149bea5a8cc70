"""Settings of the ``deform`` pipeline: what the flags, the YAML file and the web form are made from."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from recon.config import Config, setting


class DeformConfig(Config):
    """A template and a video, or point tracks, to a surface for each frame; or one surface laid onto another."""

    presets: ClassVar = {
        "fast": {"vertices": 500, "side": 320},
        "medium": {},
        "high": {"vertices": 2500, "side": 1024},
    }

    size: float = setting(
        1.0,
        "Longest side of the surface where no template tells it; sets the results' unit.",
        group="Template",
        gt=0,
        le=1e6,
    )
    method: Literal["lm", "metric_field"] = setting(
        "lm",
        "How a frame is found: Levenberg-Marquardt on the mesh; or a network by Adam, which follows tracks alone, as "
        "Barbany et al. 2024 published it.",
        group="Fitting",
    )
    vertices: int = setting(
        1200,
        "Most vertices that are solved for; a finer template is carried along by fewer.",
        group="Fitting",
        ge=50,
        le=20_000,
    )
    stiffness: float = setting(
        1.0,
        "How much the surface resists bending: less for soft cloth, more for card.",
        group="Fitting",
        ge=1e-3,
        le=1e3,
    )
    noise: float = setting(
        1.0, "Standard deviation of point tracks that are right, in pixels.", group="Fitting", ge=0.01, le=100
    )
    refine: bool = setting(
        True, "Fit point tracks' surfaces to the frames' pixels too, where there are frames.", group="Fitting"
    )
    side: int = setting(
        512, "Longest side, in pixels, at which the surface is looked at in frames.", group="Fitting", ge=64, le=4096
    )
    target: Path | None = setting(
        None,
        "Mesh or cloud that the input, one too, is laid onto; or a folder of them, in the order of their numbers.",
        group="Registration",
    )
    landmarks: Path | None = setting(
        None,
        "Text file of vertices that belong together: of the input and of the (first) target, counted from 0.",
        group="Registration",
    )
    rigid: bool = setting(
        True,
        "Find where the input lies on the (first) target before it is deformed, wherever it is.",
        group="Registration",
    )
    isometric: bool = setting(
        False,
        "Keep lengths along the input, a mesh, for what bends and hardly stretches; else it is as rigid as possible.",
        group="Registration",
    )
    rate: float = setting(30.0, "Frames a second, where the input does not say.", group="Results", gt=0, le=1000)
    sequence: Literal["none", "obj", "ply"] = setting(
        "none", "Also write a mesh for each frame, in this format.", group="Results"
    )
