"""How the rates of a fit's steps come down: exponentially all the way, and to nothing at the end.

A step of a stochastic method is noise as much as progress; while rates are high it goes far, and what the noise has
roughened the end smooths out. So the last part of a fit brings the rates down linearly to zero, whatever they are.

Source: Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training durations", the cooldown.
"""

from __future__ import annotations

from torch import Tensor


def rates_at(rates: Tensor, decays: float | Tensor, cooldown: float, done: float) -> Tensor:
    """Return the rates at a part of a fit.

    Args:
        rates: at the fit's start.
        decays: factors that they would have come down to at the fit's end, exponentially.
        cooldown: share of the fit, its last, in which they come down to zero besides, linearly; 0 for none.
        done: share of the fit that is over, in [0, 1].
    """
    left = 1.0 if cooldown == 0 else min(1.0, (1 - done) / cooldown)
    return rates * (decays**done * left)
