"""Animated glTF 2.0: one mesh, one morph target a frame, and weights that go from each to the next.

    vertices(t) = v₀ + Σ_k w_k(t) (v_k − v₀),   w(time of frame k) = e_k

The mesh itself is frame 0, which a viewer shows that knows of no animation; frame k ≥ 1 is target k − 1. Between frames
the weights go over linearly (the straight line from one frame to the next) or jump. Normals are the vertices', with
targets of their own, since a viewer cannot make them from weights; they are those of the whole surface, so that the
texture's seams are not seen in the light.

The deltas are dense: everything moves, which sparse accessors would only lengthen. A frame takes 24 bytes a vertex.
three.js and Babylon.js keep targets in an array texture, one layer a frame, of which WebGL 2 grants 256 and today's
GPUs 2,048: what has more frames than that is better written as a sequence.

Source: the glTF 2.0 specification, §3.7.2.2 (morph targets) and §3.11 (animations).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from recon.export.glb import File, add_mesh
from recon.mesh.animation import Animation
from recon.mesh.normals import vertex_normals


def animated_glb(animation: Animation, interpolation: Literal["LINEAR", "STEP"] = "LINEAR") -> bytes:
    """Return the file's bytes.

    Args:
        animation: one that was checked; it is played in a loop by most viewers.
        interpolation: how the surface goes from a frame to the next one: evenly, or all at once.
    """
    file = File()
    vertex = add_mesh(file, animation.at(0))
    first, rest = animation.frames[0], animation.frames[1:]
    primitive = file.tree["meshes"][0]["primitives"][0]
    normals = vertex_normals(first, animation.mesh.faces)
    normals[~normals.any(axis=1)] = (0, 0, 1)  # glTF asks for a length of 1
    primitive["attributes"]["NORMAL"] = file.add_vectors(normals[vertex])
    if len(rest) == 0:
        return file.packed()
    primitive["targets"] = [
        {
            "POSITION": file.add_points((frame - first)[vertex]),
            "NORMAL": file.add_vectors((vertex_normals(frame, animation.mesh.faces) - normals)[vertex]),
        }
        for frame in rest
    ]
    file.tree["meshes"][0]["weights"] = [0] * len(rest)
    times = animation.times
    bounds = {"min": [float(times[0])], "max": [float(times[-1])]}
    weights = np.eye(len(times), dtype="<f4")[:, 1:]
    sampler = {
        "input": file.add(times.astype("<f4"), "SCALAR", bounds),
        "output": file.add(weights.ravel(), "SCALAR"),
        "interpolation": interpolation,
    }
    channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
    file.tree["animations"] = [{"name": "deformation", "samplers": [sampler], "channels": [channel]}]
    return file.packed()
