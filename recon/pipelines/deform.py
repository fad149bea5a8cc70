"""A template and a video, or point tracks, to a surface for each frame: the list of stages."""

from __future__ import annotations

from recon.deform.config import DeformConfig
from recon.pipelines.deform_results import report, surface
from recon.pipelines.deform_stages import fit, load, template
from recon.pipelines.stages import Pipeline, Stage

PIPELINE = Pipeline(
    "deform",
    "a template and a video, or point tracks, to a surface that bends without stretching",
    DeformConfig,
    (
        Stage("load", load),
        Stage("template", template, settings=("size", "noise"), inputs=("load",)),
        Stage(
            "fit", fit, settings=("method", "vertices", "stiffness", "noise", "refine", "side"), inputs=("template",)
        ),
        Stage("surface", surface, settings=("rate", "sequence"), inputs=("fit",)),
        Stage("report", report, inputs=("surface",)),
    ),
)
