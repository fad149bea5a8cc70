"""What came of computing the camera poses: the figures a person looks at before trusting a reconstruction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.pose_pairs import MIN_INLIERS

MIN_FEATURES = 100


@dataclass(frozen=True)
class PoseReport:
    """Figures on a capture's poses.

    Attributes:
        total: photos given.
        registered: photos that got a pose.
        rejected: name of each other photo → why it got none.
        reprojection_error: mean distance in pixels of the working resolution between a feature and its point.
        points: 3D points.
        track_length: mean number of photos that see a point.
        components: number of photos of each model that was found, the largest first; only that one is used.
        features: median number of features of a photo.
        pairs_tried, pairs_matched: pairs of photos compared, and those that show the same thing.
        cameras: model, parameters and size of each camera, at the working resolution.
        robust: the slower features were needed.
        seconds: time of each step.
        estimated_seconds: what :func:`~recon.capture.poses.estimate_pose_seconds` had said.
    """

    total: int
    registered: int
    rejected: dict[str, str]
    reprojection_error: float
    points: int
    track_length: float
    components: list[int]
    features: int
    pairs_tried: int
    pairs_matched: int
    cameras: list[dict[str, Any]]
    robust: bool
    seconds: dict[str, float]
    estimated_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return asdict(self)

    def text(self) -> str:
        """Return the report for people."""
        lines = [
            f"{self.registered} of {self.total} photos have a pose; {self.points} points, each seen in "
            f"{self.track_length:.1f} photos; reprojection error {self.reprojection_error:.2f} pixels.",
            f"{self.pairs_matched} of {self.pairs_tried} pairs of photos overlap; {self.features} features per photo; "
            f"{sum(self.seconds.values()):.0f} s.",
        ]
        return "\n".join(lines + self.remarks())

    def remarks(self) -> list[str]:
        """Return what went wrong, a sentence each: parts that fell off, photos left out."""
        lines = [f"Left out: {name}: {reason}." for name, reason in self.rejected.items()]
        if len(self.components) > 1:
            lines.insert(
                0,
                f"The photos fell into {len(self.components)} parts that share too little, of "
                f"{', '.join(map(str, self.components))} photos; the largest is used.",
            )
        return lines


def why_rejected(
    index: int,
    registered: set[int],
    other_parts: list[set[int]],
    features: NDArray[np.int64],
    inliers: NDArray[np.int64],
) -> str:
    """Return the reason why view ``index`` has no pose.

    Args:
        index: the view.
        registered: the views that have one.
        other_parts: the views of each smaller model.
        features: (n,) number of features of each view.
        inliers: (n, n) verified matches between views.
    """
    if features[index] < MIN_FEATURES:
        return f"too few features ({features[index]}): blurred, dark or without texture"
    best = int(inliers[index].max())
    if best < MIN_INLIERS:
        return "too few matches: it shows nothing that another photo shows too"
    part = next((part for part in other_parts if index in part), None)
    if part is not None:
        return f"not connected: it and {len(part) - 1} others share too little with the rest"
    linked = max((int(inliers[index, j]) for j in registered), default=0)
    if linked < MIN_INLIERS:
        return "not connected: it overlaps only with photos that have no pose either"
    return f"too few matches: {linked} at most with a photo that has a pose"
