"""A point cloud to a watertight mesh: the list of stages."""

from __future__ import annotations

from recon.isosurface.points_config import PointsConfig
from recon.pipelines.points_stages import fit, load, mesh, prepare, report
from recon.pipelines.stages import Pipeline, Stage

PIPELINE = Pipeline(
    "points",
    "a point cloud, an RGB-D folder or a mesh to a watertight mesh",
    PointsConfig,
    (
        Stage("load", load),
        Stage(
            "prepare",
            prepare,
            settings=("points", "outliers", "normals", "denoise", "seed"),
            inputs=("load",),
            version=2,
        ),
        Stage("fit", fit, settings=("resolution", "steps", "seed"), inputs=("prepare",), version=2),
        Stage("mesh", mesh, settings=("open",), inputs=("fit",)),
        Stage("report", report, inputs=("mesh",)),
    ),
)
