"""Photos or video to Gaussian splats: the list of stages, and where each leaves its result.

Every stage finds what it builds on in the folders of the earlier ones, so that a run may be resumed at any of them;
``context.memo`` only spares a second reading.
"""

from __future__ import annotations

from recon.pipelines.photo_stages import load, poses
from recon.pipelines.splats_fit import fit
from recon.pipelines.splats_mesh import mesh
from recon.pipelines.splats_results import export, report, turntable
from recon.pipelines.splats_views import evaluate
from recon.pipelines.stages import Pipeline, Stage
from recon.splats.config import SplatsConfig

_FIT = (
    "max_side",
    "background",
    "hold_out",
    "steps",
    "splats",
    "sh_degree",
    "optimizer",
    "views_per_step",
    "ssim_weight",
    "antialiased",
    "refine_cameras",
    "exposure",
    "seed",
)

PIPELINE = Pipeline(
    "splats",
    "photos or video to Gaussian splats, novel views and a mesh",
    SplatsConfig,
    (
        Stage("load", load),
        Stage("poses", poses, settings=("seed",), inputs=("load",)),
        Stage("fit", fit, settings=_FIT, inputs=("poses",), version=9),
        Stage("export", export, inputs=("fit",)),
        Stage("evaluate", evaluate, inputs=("fit",), version=2),
        Stage("mesh", mesh, settings=("mesh", "faces"), inputs=("fit",), version=2),
        Stage("turntable", turntable, settings=("turntable",), inputs=("fit",)),
        Stage("report", report, inputs=("evaluate", "mesh", "turntable", "export")),
    ),
)
