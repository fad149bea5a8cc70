"""A template and a video, or a surface and others that it is laid onto, to a surface that bends: the list of stages."""

from __future__ import annotations

from collections.abc import Callable

from recon.deform.config import DeformConfig
from recon.pipelines import deform_registration, deform_results, deform_stages
from recon.pipelines.deform_stages import DeformContext
from recon.pipelines.stages import Pipeline, Stage

Run = Callable[[DeformContext], None]

FOR_FILMS = ("size", "method", "vertices", "stiffness", "noise", "refine", "side")
FOR_REGISTRATIONS = ("rigid", "isometric")
"""Settings that the other of the two does not look at."""


def _either(filmed: Run, registered: Run) -> Run:
    """Return a stage that does the one for a video or tracks, and the other for a source and its targets."""

    def run(context: DeformContext) -> None:
        (registered if deform_registration.registers(context) else filmed)(context)

    return run


def _fit(context: DeformContext) -> None:
    """Fit, having said which settings make no difference to it."""
    registers = deform_registration.registers(context)
    if unused := context.config.chosen(FOR_FILMS if registers else FOR_REGISTRATIONS):
        kind, other = ("a registration", "a video or tracks") if registers else ("a video or tracks", "a registration")
        names = ", ".join(f"'{name}'" for name in unused)
        context.events.warn(f"Settings that make no difference to {kind}: {names}. They are for {other}.")
    (deform_registration.fit if registers else deform_stages.fit)(context)


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
            _fit,
            settings=("method", "vertices", "stiffness", "noise", "refine", "side", "landmarks", "rigid", "isometric"),
            inputs=("template",),
            version=2,
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
