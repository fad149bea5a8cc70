"""What a report is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Array
from recon.evaluate.markup import finite


@dataclass(frozen=True)
class HeldOutView:
    """One photo that no fit has seen, and its render.

    Attributes:
        name: of the photo.
        photo, render: (H, W, 3) float32 in [0, 1].
        mask: (H, W) in [0, 1], where the figures count; None means everywhere.
        psnr, ssim: computed from the pictures where None.
    """

    name: str
    photo: Array
    render: Array
    mask: Array | None = None
    psnr: float | None = None
    ssim: float | None = None


@dataclass(frozen=True)
class Deformation:
    """How a surface deformed, frame by frame.

    Attributes:
        frames: the figures of each frame in time: ``strain_median``, ``strain_p95``, ``strain_max`` and ``folds`` as
            :func:`recon.evaluate.strain.strain_summary` has them, ``pixels`` (mean distance of the surface's points
            from their tracks in the picture) and ``seconds``. Those that no frame has are not shown.
        films: (caption, MP4 file).
        strain_maps: (caption, (H, W, 3) float32 in [0, 1]) in the colours of
            :func:`recon.evaluate.strain.strain_colours`, up to ``STRAIN_RANGE``.
    """

    frames: Sequence[Mapping[str, float]]
    films: Sequence[tuple[str, Path]] = ()
    strain_maps: Sequence[tuple[str, Array]] = ()

    def points(self, key: str) -> list[tuple[float, float]]:
        """Return (frame, figure) of the frames that have the figure, and it is finite."""
        values = ((float(i), finite(frame.get(key))) for i, frame in enumerate(self.frames))
        return [(i, value) for i, value in values if value is not None]


@dataclass(frozen=True)
class ReportData:
    """What a report is made of; every part but the first two may be missing and its section is then left out.

    Attributes:
        title: of the page, for example the capture's name.
        result: result.json's dictionary. Of its ``history`` the chart shows ``psnr`` (training views),
            ``validation_psnr`` and ``splats`` over ``seconds``, and marks each ``stage``.
        source: where the photos came from.
        views: held-out views; consumed once, one at a time, so a generator that renders them keeps memory flat.
        measured_on: what ``views`` are: ``held-out``, ``validation`` or ``training`` photos, where there are too few.
        hero: (H, W, 3) float32 in [0, 1], the picture at the top.
        opacities, scales: (N,) in [0, 1] and (N, 3) in the capture's units, of the final splats.
        splat_bytes: memory of the final splats' parameters.
        poses: how the cameras were found, as :meth:`recon.capture.pose_report.PoseReport.to_json` tells it; None where
            the input brought its cameras.
        deformation: what a surface that deforms has beside; None where nothing moves.
        figures: what was measured beside PSNR and SSIM, name to value.
        settings, versions: name to value; nested dictionaries are flattened.
    """

    title: str
    result: Mapping[str, Any]
    source: str = ""
    views: Iterable[HeldOutView] = ()
    measured_on: str = "held-out"
    hero: Array | None = None
    opacities: NDArray[np.floating] | None = None
    scales: NDArray[np.floating] | None = None
    splat_bytes: int | None = None
    poses: Mapping[str, Any] | None = None
    deformation: Deformation | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
