"""A template and a video, or a surface and others that it is laid onto, to a surface that bends: the list of stages."""

from __future__ import annotations

from collections.abc import Callable

from recon.deform.config import DeformConfig
from recon.pipelines import deform_registration, deform_results, deform_stages
from recon.pipelines.deform_stages import DeformContext
from recon.pipelines.stages import Pipeline, Stage

Run = Callable[[DeformContext], None]


def _either(filmed: Run, registered: Run) -> Run:
    """Return a stage that does the one for a video or tracks, and the other for a source and its targets."""

    def run(context: DeformContext) -> None:
        (registered if deform_registration.registers(context) else filmed)(context)

    return run


PIPELINE = Pipeline(
    "deform",
    "a template and a video, or point tracks, to a surface that bends without stretching; or one scan onto another",
    DeformConfig,
    (
        Stage("load", _either(deform_stages.load, deform_registration.load), settings=("target",)),
        Stage(
            "template",
            _either(deform_stages.template, deform_registration.template),
            settings=("size", "noise"),
            inputs=("load",),
        ),
        Stage(
            "fit",
            _either(deform_stages.fit, deform_registration.fit),
            settings=("method", "vertices", "stiffness", "noise", "refine", "side", "landmarks", "rigid", "isometric"),
            inputs=("template",),
        ),
        Stage(
            "surface",
            _either(deform_results.surface, deform_registration.surface),
            settings=("rate", "sequence"),
            inputs=("fit",),
        ),
        Stage("report", _either(deform_results.report, deform_registration.report), inputs=("surface",)),
    ),
)
