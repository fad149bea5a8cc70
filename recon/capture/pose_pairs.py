"""Which photos are matched with which, and the matching.

Few photos are matched each with each. That grows with n², so of more photos only the most promising pairs are, which
are found by matching each photo's few largest features alone (preemptive matching: Wu 2013, "Towards linear-time
incremental structure from motion", section 3). Frames of a video are matched with the frames around them, and where
they look alike (the camera came back) with those too.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.capture.pose_features import picture_name, view_index
from recon.capture.pose_run import Meter, run_step, threads
from recon.events import Events

EXHAUSTIVE = 40
"""Up to so many photos, each is matched with each."""
NEIGHBOURS = 20
"""Of more photos, each is matched with so many that look most alike."""
OVERLAP = 10
"""Frames of a video are matched with so many following ones, and with those 16, 32 and 64 away."""
LOOPS = 4
"""And each with so many others that look alike."""
MIN_INLIERS = 15

_LARGEST = 256  # features per photo that tell which photos look alike
_MIN_ALIKE = 4  # matches among these
_MAX_RATIO = 0.8  # Lowe's, of angles


def choose_pairs(database: Path, total: int, ordered: bool, events: Events) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of views to match; the features must be in the database."""
    if total <= (OVERLAP if ordered else EXHAUSTIVE):
        return list(itertools.combinations(range(total), 2))
    alike = likeness(largest_features(database, total), events)
    pairs: set[tuple[int, int]] = set()
    best = np.argsort(-alike, axis=1, kind="stable")
    for i in range(total):
        # Frames near in time are matched anyway: a loop is closed by others.
        others = [j for j in best[i] if not ordered or abs(int(j) - i) > OVERLAP]
        near = [*range(1, OVERLAP + 1), *(2**k for k in range(4, 7))] if ordered else [1, 2]
        chosen = [int(j) for j in others[: LOOPS if ordered else NEIGHBOURS] if alike[i, j] >= _MIN_ALIKE]
        chosen += [i + k for k in near if i + k < total]
        pairs.update((min(i, j), max(i, j)) for j in chosen)
    return sorted(pairs)


def largest_features(database: Path, total: int) -> NDArray[np.float32]:
    """Return (n, 256, 128) unit descriptors of the largest features of each view, zero where it has fewer."""
    found = np.zeros((total, _LARGEST, 128), np.float32)
    with pycolmap.Database.open(database) as db:
        for image in db.read_all_images():
            keypoints = db.read_keypoints(image.image_id)
            # Columns 2… are scale and angle, or the affine shape: its norm orders the features as the scale does.
            size = np.linalg.norm(keypoints[:, 2:3] if keypoints.shape[1] == 4 else keypoints[:, 2:], axis=1)
            order = np.argsort(-size, kind="stable")[:_LARGEST]
            descriptors = db.read_descriptors(image.image_id).data[order].astype(np.float32)
            descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
            found[view_index(image.name), : len(order)] = descriptors
    return found


def likeness(features: NDArray[np.float32], events: Events) -> NDArray[np.int64]:
    """Return (n, n) numbers of mutual nearest neighbours that pass the ratio test, 0 on the diagonal.

    Args:
        features: (n, h, d) unit descriptors; zero vectors stand for no feature.
        events: asked whether to stop.
    """
    n, h, d = features.shape
    alike = np.zeros((n, n), np.int64)
    for i in range(n - 1):
        events.check()
        cosine = (features[i] @ features[i + 1 :].reshape(-1, d).T).reshape(h, n - 1 - i, h)
        forward, backward = cosine.argmax(2), cosine.argmax(0)
        mutual = np.arange(h)[:, None] == np.take_along_axis(backward, forward.T, 1).T
        best = np.take_along_axis(cosine, forward[..., None], 2)[..., 0]
        np.put_along_axis(cosine, forward[..., None], -1, 2)
        passed = np.arccos(best.clip(-1, 1)) < _MAX_RATIO * np.arccos(cosine.max(2).clip(-1, 1))
        alike[i, i + 1 :] = alike[i + 1 :, i] = (mutual & passed).sum(0)
    return alike


def match_pairs(database: Path, pairs: list[tuple[int, int]], seed: int, events: Events) -> None:
    """Match and verify the pairs that have not been."""
    listing = database.with_name("pairs.txt")
    listing.write_text("".join(f"{picture_name(i)} {picture_name(j)}\n" for i, j in pairs))
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads, matching.use_gpu = threads(), False
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = listing
    verification = pycolmap.TwoViewGeometryOptions()
    verification.min_num_inliers = MIN_INLIERS
    verification.ransac.random_seed = seed
    with pycolmap.Database.open(database) as db:
        meter = Meter(events, "matched", len(pairs), db.num_matched_image_pairs())
        run_step(
            lambda token: pycolmap.match_image_pairs(
                database,
                matching_options=matching,
                pairing_options=pairing,
                verification_options=verification,
                device=pycolmap.Device.cpu,
                cancellation_token=token,
            ),
            events,
            lambda: meter(db.num_matched_image_pairs()),
        )


def inlier_counts(database: Path, total: int) -> NDArray[np.int64]:
    """Return (n, n) numbers of geometrically verified matches between views."""
    counts = np.zeros((total, total), np.int64)
    with pycolmap.Database.open(database) as db:
        index = {image.image_id: view_index(image.name) for image in db.read_all_images()}
        for pair, inliers in zip(*db.read_two_view_geometry_num_inliers(), strict=True):
            i, j = (index[image] for image in pycolmap.pair_id_to_image_pair(pair))
            counts[i, j] = counts[j, i] = inliers
    return counts
