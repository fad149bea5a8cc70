"""Loaded by the fork server of :mod:`app.engine_local` and nothing else: what all jobs share, and a quick end.

The fork server has nothing to put in order when the batch is gone; torch's farewell would take it two seconds.
"""

from __future__ import annotations

import atexit
import os

import recon  # noqa: F401  before torch: how its threads wait is settled when it is loaded

import torch  # noqa: F401  isort: skip

atexit.register(os._exit, 0)  # its children leave without atexit
