"""What a closed surface is worth as a body: volume, centre of mass, drag; differentiable in its vertices.

    V = Σ_f a · (b × c) / 6 ,    c = Σ_f (a · (b × c) / 6) (a + b + c) / 4 / V        over triangles (a, b, c)
    D / q = Σ_f 2 A_f max(0, -n_f · d)³                                             in a flow of direction d

The drag is the pressure's in Newton's impact theory: a stream loses the momentum that it has along the normal of what
it meets, C_p = 2 sin² of the angle at which it meets it, and nothing presses in the lee. What lies in another part's
wind shadow counts as if it did not. A ball has a drag coefficient of 1, a plate across the flow 2.

Sources: Mirtich 1996, "Fast and Accurate Computation of Polyhedral Mass Properties"; Anderson 2006, "Hypersonic and
High-Temperature Gas Dynamics", §3.2. Remelli et al. 2020, "MeshSDF", §4.3, minimise the drag that a network predicts.
Conventions: world units; faces counter-clockwise seen from outside.
"""

from __future__ import annotations

import torch
from torch import Tensor


def volume_and_centre(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the volume that a closed surface bounds, and the (3,) centre of mass of what fills it evenly.

    Args:
        vertices: (V, 3).
        faces: (F, 3), at least one.
    """
    a, b, c = (vertices.index_select(0, corner) for corner in faces.long().unbind(dim=1))
    parts = (a * torch.linalg.cross(b, c)).sum(dim=1) / 6
    volume = parts.sum()
    return volume, (parts[:, None] * (a + b + c)).sum(dim=0) / (4 * volume)


def pressure_drag(vertices: Tensor, faces: Tensor, flow: Tensor) -> Tensor:
    """Return the drag over the dynamic pressure q, in squared units.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        flow: (3,) unit vector, where the stream goes.
    """
    a, b, c = (vertices.index_select(0, corner) for corner in faces.long().unbind(dim=1))
    doubled = torch.linalg.cross(b - a, c - a)  # twice the area, along the normal
    against = (-doubled @ flow).clamp(min=0)
    squared = doubled.square().sum(dim=1)
    # 2 A (-n · d)³ with A = |doubled| / 2 and n = doubled / |doubled|; a face without an area meets nothing.
    return (against**3 / squared.clamp(min=torch.finfo(vertices.dtype).tiny)).sum()
