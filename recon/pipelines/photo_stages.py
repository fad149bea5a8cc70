"""The stages that every pipeline from photos begins with: load, poses.

The functions ``capture_of`` and ``pose_report`` give later stages what these left, from memory or from disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Capture, View
from recon.capture.config import PhotosConfig
from recon.capture.load import load as load_capture
from recon.capture.normalise import apply, normalising_transform
from recon.capture.resize import working_view
from recon.capture.split import split
from recon.errors import InputError
from recon.job_files import read_json, remove, write_json
from recon.pipelines.context import Context

PhotosContext = Context[PhotosConfig]


def load(context: PhotosContext) -> None:
    """Read what the input is made of, and say what had to be skipped."""
    capture = load_capture(context.input, context.events, context.folder)
    if len(capture.views) < 2:
        raise InputError(
            f"{context.input} is a point cloud or a mesh, not photos.",
            "Clouds become a mesh by --pipeline points.",
            "too-few-photos",
        )
    for message in capture.warnings:
        context.events.warn(message)
    context.memo["loaded"] = capture
    context.record.counts["views"] = len(capture.views)


def _loaded(context: PhotosContext) -> Capture:
    if "loaded" not in context.memo:
        context.memo["loaded"] = load_capture(context.input, context.events, context.output("load"))
    capture: Capture = context.memo["loaded"]
    return capture


def poses(context: PhotosContext) -> None:
    """Find the cameras, where the input brings none."""
    capture = _loaded(context)
    if capture.has_poses:
        write_json(context.folder / "report.json", None)
        context.record.counts["registered"] = len(capture.views)
        return
    from recon.capture.poses import estimate_poses  # loads COLMAP, which posed captures need not wait for

    posed, report = estimate_poses(capture, context.folder / "colmap", context.events, seed=context.config.seed)
    write_json(context.folder / "report.json", report.to_json())
    for leftover in ("pictures", "masks", "plain", "robust"):
        remove(context.folder / "colmap" / leftover)
    context.memo["posed"] = posed
    context.record.counts["registered"] = report.registered
    context.record.metrics["reprojection_error"] = round(report.reprojection_error, 3)


def _posed(context: PhotosContext) -> Capture:
    capture = _loaded(context)
    if capture.has_poses:
        return capture
    if "posed" not in context.memo:
        from recon.capture.poses import read_poses

        context.memo["posed"] = read_poses(capture, context.output("poses") / "colmap")
    posed: Capture = context.memo["posed"]
    return posed


@dataclass(frozen=True)
class Prepared:
    """A capture as it is fitted.

    Attributes:
        capture: in the fitting frame, at the working resolution.
        transform: (4, 4) similarity from the input's world to the fitting frame.
        train, validation, held_out: indices of the views.
        world: the capture in the input's world and resolution.
    """

    capture: Capture
    transform: NDArray[np.float64]
    train: list[int]
    validation: list[int]
    held_out: list[int]
    world: Capture

    def views(self, indices: list[int]) -> list[View]:
        """Return the views of these indices."""
        return [self.capture.views[i] for i in indices]


def capture_of(context: PhotosContext) -> Prepared:
    """Return the capture with poses, in the fitting frame, at the working resolution, split."""
    if "prepared" not in context.memo:
        world = _posed(context)
        transform = normalising_transform(world)
        moved = apply(world, transform)
        moved = replace(moved, views=tuple(working_view(v, context.config.max_side) for v in moved.views))
        train, validation, held_out = split(moved)
        if not context.config.hold_out and not moved.own_split:
            train, held_out = sorted(train + held_out), []
        context.memo["prepared"] = Prepared(moved, transform, train, validation, held_out, world)
    prepared: Prepared = context.memo["prepared"]
    return prepared


def pose_report(context: PhotosContext) -> dict[str, Any] | None:
    """Return the report of the poses stage, None where the input brought its own cameras."""
    found = read_json(context.output("poses") / "report.json")
    return found if isinstance(found, dict) else None
