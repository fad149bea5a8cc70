"""Colours from one mesh to the texture of another of the same shape, such as from a fine mesh to its decimation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from kernels.nearest import nearest
from recon.errors import InputError
from recon.events import Events
from recon.mesh.atlas import texels, unwrap
from recon.mesh.mesh import Mesh
from recon.mesh.texture import fill, surface_colours


def transfer(source: Mesh, target: Mesh, size: int, events: Events | None = None) -> Mesh:
    """Return ``target`` with an atlas and a texture of ``size`` × ``size`` texels that shows the colours of ``source``.

    Each texel takes the colour of the point of ``source`` nearest to its own place on ``target``.

    Raises:
        InputError: ``source`` has no colours (code ``"no-colours"``), a mesh is unusable, or the size makes no sense.
    """
    events = events or Events()
    source.check()
    if source.colours is None and source.texture is None:
        hint = "Leave the texture out, or give a mesh with colours."
        raise InputError("The mesh has no colours to make a texture of.", hint, "no-colours")
    unwrapped = unwrap(target, size)
    assert unwrapped.uvs is not None
    events.check()
    shown = texels(unwrapped.uvs, size, size)
    points = torch.from_numpy(shown.points(unwrapped).astype(np.float32))
    _, face, weights = nearest(points, torch.from_numpy(source.vertices), torch.from_numpy(source.faces))
    texture, known = np.full((size, size, 3), 0.5, np.float32), np.zeros((size, size), bool)
    texture[shown.row, shown.column] = surface_colours(source, face.numpy(), weights.numpy())
    known[shown.row, shown.column] = True
    return replace(unwrapped, colours=None, texture=fill(texture, known))
