"""Runs ``recon`` with a checkpoint at nearly every step, so that a kill in mid-fit has something to go on from."""

from __future__ import annotations

import sys

from app.cli import main
from recon.pipelines import context

context.CHECKPOINT_SECONDS = 0.02

if __name__ == "__main__":
    sys.exit(main())
