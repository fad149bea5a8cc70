"""Loaded first by the fork server of :mod:`app.engine_local`, and by nothing else: a quick end.

The fork server has nothing to put in order when the batch is gone; torch's farewell, where a pipeline has loaded it,
would take two seconds.
"""

from __future__ import annotations

import atexit
import importlib
import os

importlib.import_module("recon")  # before torch: how torch's threads wait is settled when it is loaded

atexit.register(os._exit, 0)  # its children leave without atexit
