"""Settings of the ``mesh`` pipeline: what the flags, the YAML file and the web form are made from."""

from __future__ import annotations

from typing import ClassVar

from pydantic import field_validator

from recon.capture.config import PhotosConfig
from recon.config import setting


class MeshConfig(PhotosConfig):
    """Photos to a watertight mesh. The presets trade time for detail; measured times are in benchmarks/README.md."""

    presets: ClassVar = {
        "fast": {"resolution": 64, "steps": 300, "finish": 100, "max_side": 400, "faces": 20_000, "turntable": 60},
        "medium": {},
        "high": {"resolution": 128, "steps": 1500, "finish": 400, "max_side": 1200, "faces": 100_000, "texture": 2048},
    }

    resolution: int = setting(
        96, "Cells along the longest side of the object's box, in the end.", group="Fitting", ge=8, le=256
    )
    steps: int = setting(600, "Steps of optimisation.", group="Fitting", ge=1, le=100_000)
    finish: int = setting(
        200,
        "Steps of the finish, which moves the vertices of the remeshed surface; 0 for none.",
        group="Fitting",
        ge=0,
        le=100_000,
    )
    views_per_step: int = setting(2, "Photos that each step looks at.", group="Fitting", ge=1, le=64)
    smoothness: float = setting(
        0.02, "Weight of the bend between neighbouring triangles in the loss.", group="Fitting", ge=0, le=10
    )
    faces: int = setting(50_000, "Most faces the mesh may have.", group="Results", ge=100, le=10_000_000)
    texture: int = setting(
        1024, "Texels along the texture's side; 0 for colours at the vertices instead.", group="Results", ge=0, le=8192
    )
    turntable: int = setting(120, "Frames of the turntable video; 0 for none.", group="Results", ge=0, le=2000)

    @field_validator("texture")
    @classmethod
    def _texture(cls, size: int) -> int:
        if 0 < size < 16:
            raise ValueError("a texture has 16 texels along a side at least; 0 makes none")
        return size
