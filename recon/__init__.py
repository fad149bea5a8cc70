"""Differentiable 3D reconstruction: from photos, videos, scans and templates to splats and meshes."""

import os

# Read by OpenMP when torch is loaded. By default its threads wait for one another in a busy loop, and where another
# program keeps one core of two busy a step of a fit then takes six times as long as with a single thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
