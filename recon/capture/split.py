"""Which views are fitted to, which watch the fit, and which judge the result."""

from __future__ import annotations

import numpy as np

from recon.capture.capture import Capture

HOLD_EVERY = 8
MIN_VIEWS = 8
MAX_VALIDATION = 10


def split(capture: Capture) -> tuple[list[int], list[int], list[int]]:
    """Split the views into training, validation and held-out ones; each view is in exactly one of the three.

    Held out are the capture's own test views; without any, every 8th view in name order, starting with the first (the
    convention of LLFF, Mip-NeRF 360 and 3DGS, so that figures compare). Validation, for early stopping and for the
    metrics shown while fitting, is every 10th of the remaining views, at least 1 and at most 10, spread evenly.

    With fewer than 8 views every one is needed for the fit: none is held out (save the capture's own), and with fewer
    than 8 to train on none validates.

    Returns:
        (training, validation, held out): indices into ``capture.views``, each in name order.
    """
    order = sorted(range(len(capture.views)), key=lambda i: capture.views[i].name)
    if capture.own_split:
        held_out = [i for i in order if capture.views[i].held_out]
    else:
        held_out = order[::HOLD_EVERY] if len(order) >= MIN_VIEWS else []
    train = [i for i in order if i not in set(held_out)]
    if len(capture.views) < MIN_VIEWS or (capture.own_split and len(train) < MIN_VIEWS):
        return train, [], held_out
    count = min(MAX_VALIDATION, max(1, len(train) // 10))
    # The middles of `count` equal stretches: ends are often the views that nothing else covers.
    middles = ((np.arange(count) + 0.5) * len(train) / count).astype(int)
    validation = [train[i] for i in middles]
    return [i for i in train if i not in set(validation)], validation, held_out
