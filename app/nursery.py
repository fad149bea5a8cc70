"""Loaded by the fork server of :mod:`app.engine_local` and nothing else: what all jobs share, and a quick end.

The fork server has nothing to put in order when the batch is gone; torch's farewell would take it two seconds.
"""

from __future__ import annotations

import atexit
import importlib
import os

for module in ("recon", "torch"):  # in this order: how torch's threads wait is settled when it is loaded
    importlib.import_module(module)

atexit.register(os._exit, 0)  # its children leave without atexit
