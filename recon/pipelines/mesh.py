"""Photos to a watertight textured mesh: the list of stages, and where each leaves its result."""

from __future__ import annotations

from recon.isosurface.config import MeshConfig
from recon.pipelines.mesh_field import field
from recon.pipelines.mesh_fit import fit, refine
from recon.pipelines.mesh_results import mesh, texture
from recon.pipelines.mesh_views import evaluate, report, turntable
from recon.pipelines.photo_stages import load, poses
from recon.pipelines.stages import Pipeline, Stage

_PHOTOS = ("max_side", "background", "hold_out", "seed")

PIPELINE = Pipeline(
    "mesh",
    "photos or video of a thing to a watertight textured mesh",
    MeshConfig,
    (
        Stage("load", load),
        Stage("poses", poses, settings=("seed",), inputs=("load",)),
        Stage("field", field, settings=(*_PHOTOS, "resolution"), inputs=("poses",), version=2),
        Stage("fit", fit, settings=("steps", "views_per_step", "smoothness"), inputs=("field",), version=2),
        Stage("refine", refine, settings=("finish", "faces"), inputs=("fit",)),
        Stage("mesh", mesh, settings=("faces",), inputs=("refine",)),
        Stage("texture", texture, settings=("texture",), inputs=("mesh",)),
        Stage("evaluate", evaluate, inputs=("texture",), version=2),
        Stage("turntable", turntable, settings=("turntable",), inputs=("texture",)),
        Stage("report", report, inputs=("evaluate", "turntable")),
    ),
)
