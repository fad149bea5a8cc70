"""Splats and meshes as the page's 3D view wants them: upright, seen from where the photos were taken, well framed.

The view of splats always starts the same way and knows nothing of the scene: y runs *down* and z away, the camera is 5
units from the origin, 0.5 radians to the right of −z and 0.5 above, and 1132 pixels of its canvas show one unit at a
distance of one. So the scene is moved instead, by one similarity

    p ↦ DOWN · TURN · R (p − c) · SHOWN / r,

where c is what the cameras look at, R makes up +y and the photos' side +z (glTF's front), DOWN turns about x to y down,
TURN undoes the 0.5 radians, and r is the radius of the thing that all cameras see. What lies further away than a few
such radii, the room and floaters, would hang before that camera and is left out. The view of meshes frames its model
itself; it gets R alone. What people take away stays in the capture's world: these are copies, in JOB/previews.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon.evaluate.turntable import find_focus, find_up
from recon.job_files import atomic, read_json

if TYPE_CHECKING:
    from recon.splats.model import Splats

Vectors = NDArray[np.float64]

MOST_SPLATS = 300_000
"""What a phone still turns smoothly: 32 bytes each."""
SHOWN = 0.72
"""Radius of the thing in the view's units: 325 pixels across, which a phone has."""
KEPT = 2.5
"""How many of those radii around the centre are shown."""
MOST_OF_IT = 0.95
"""Share of what is seen within the common view that belongs to the thing; the radius reaches so far."""
AZIMUTH = 0.5
"""Where the view of splats starts, in radians to the right of the front."""
ONE_SIDE = 0.3
"""Longer means of the horizontal directions to the cameras are a side that the photos were taken from."""

_DOWN = np.diag([1.0, -1.0, -1.0])
_lock = threading.Lock()


@dataclass(frozen=True)
class Frame:
    """How a scene is put before a viewer.

    Attributes:
        centre: (3,) what the cameras look at.
        rotation: (3, 3) from the world to +y up and +z towards the cameras.
        reach: radius of the sphere about the centre that every camera sees; infinite where they look at nothing common.
    """

    centre: Vectors
    rotation: Vectors
    reach: float


def splats_for_view(job_folder: Path, exports: Mapping[str, Path]) -> Path:
    """Return JOB/previews/view.splat, made or made anew where needed.

    Args:
        job_folder: the job directory.
        exports: the job's files by name; ``splats``, and ``cameras`` if there are any.

    Raises:
        InputError: the splats cannot be read, or the copy cannot be written.
    """
    from recon.export import read_splats, write_splats

    copy = job_folder / "previews" / "view.splat"
    with _lock:
        if not _fresh(copy, exports, "splats"):
            write_splats(framed(read_splats(exports["splats"]), frame_of(exports.get("cameras"))), copy)
    return copy


def mesh_for_view(job_folder: Path, exports: Mapping[str, Path]) -> Path:
    """Return JOB/previews/view.glb, made or made anew where needed; the mesh itself where nothing is known of its pose.

    Args:
        job_folder: the job directory.
        exports: the job's files by name; ``mesh``, a .glb whose first node holds it, and ``cameras`` if there are any.
    """
    from scipy.spatial.transform import Rotation

    mesh, copy = exports["mesh"], job_folder / "previews" / "view.glb"
    frame = frame_of(exports.get("cameras"))
    if frame is None:
        return mesh
    with _lock, suppress(OSError, ValueError, KeyError, IndexError, TypeError, struct.error):
        if not _fresh(copy, exports, "mesh"):
            content = rotated(mesh.read_bytes(), Rotation.from_matrix(frame.rotation).as_quat().tolist())
            with atomic(copy) as part:
                part.write_bytes(content)
        return copy
    return mesh


def rotated(glb: bytes, rotation: list[float]) -> bytes:
    """Return a binary glTF 2.0 file whose first node is turned; its geometry is copied as it is."""
    magic, version, _, length, kind = struct.unpack_from("<4sII I4s", glb)
    if (magic, kind) != (b"glTF", b"JSON"):
        raise ValueError("no binary glTF")
    tree = json.loads(glb[20 : 20 + length])
    tree["nodes"][0]["rotation"] = rotation
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    rest = glb[20 + length :]
    return struct.pack("<4sII I4s", magic, version, 20 + len(text) + len(rest), len(text), kind) + text + rest


def _fresh(copy: Path, exports: Mapping[str, Path], name: str) -> bool:
    made_of = [exports[key] for key in (name, "cameras") if key in exports]
    with suppress(OSError):
        return copy.stat().st_mtime >= max(path.stat().st_mtime for path in made_of)
    return False


def frame_of(cameras: Path | None) -> Frame | None:
    """Return how to put a scene before a viewer; None where the cameras do not say.

    Args:
        cameras: a nerfstudio ``transforms.json`` in the scene's world.
    """
    with suppress(ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, np.linalg.LinAlgError):
        content = read_json(cameras) if cameras is not None else None
        if content is None:
            return None
        poses = np.array([frame["transform_matrix"] for frame in content["frames"]], dtype=np.float64)
        axes = poses[:, :3, :3] / np.linalg.norm(poses[:, :3, :3], axis=1, keepdims=True)
        right, above, back, positions = axes[:, :, 0], axes[:, :, 1], axes[:, :, 2], poses[:, :3, 3]
        up = find_up(right, above)
        focus = find_focus(positions, -back)
        if up is None or not np.isfinite(poses).all():
            return None
        if focus is None:
            return Frame(np.full(3, np.nan), _turn(up, back), np.inf)
        lenses = [{**content, **frame} for frame in content["frames"]]
        slopes = [min(lens["w"] / lens["fl_x"], lens["h"] / lens["fl_y"]) / 2 for lens in lenses]
        distance = float(np.median(np.linalg.norm(positions - focus, axis=1)))
        return Frame(focus, _turn(up, positions - focus), distance * float(np.sin(np.arctan(np.median(slopes)))))
    return None


def _turn(up: Vectors, towards: Vectors) -> Vectors:
    """Return the (3, 3) rotation that makes ``up`` +y, and +z the side that the (N, 3) directions ``towards`` are on.

    Photos from all around have no such side: there it is the first one's.
    """
    flat = towards - np.outer(towards @ up, up)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    flat = flat / np.maximum(lengths, 1e-9 * max(float(lengths.max()), 1e-300))
    front = flat.mean(axis=0)
    if np.linalg.norm(front) < ONE_SIDE:
        front = flat[0]
    if np.linalg.norm(front) < 1e-6:  # all from above
        front = np.eye(3)[np.abs(up).argmin()]
        front = front - (front @ up) * up
    front = front / np.linalg.norm(front)
    return np.stack([np.cross(up, front), up, front])


def framed(splats: Splats, frame: Frame | None) -> Splats:
    """Return the splats to show, moved to where the view of splats looks, without view-dependent colour.

    Args:
        splats: any number, at least one.
        frame: of :func:`frame_of`; None: around the splats' median, as they stand.
    """
    import torch

    from recon.splats.transform import transform

    means = splats.means.double().numpy()
    scales = np.sort(splats.scales.double().numpy(), axis=1)
    covers = splats.opacities.double().numpy() * scales[:, 1] * scales[:, 2]
    if frame is None:
        frame = Frame(np.full(3, np.nan), np.eye(3), np.inf)
    centre = frame.centre if np.isfinite(frame.centre).all() else np.median(means, axis=0)
    distances = np.linalg.norm(means - centre, axis=1)
    radius = thing_radius(distances, np.minimum(covers, np.quantile(covers, 0.9)), frame.reach)  # no veil decides it
    kept = np.flatnonzero((distances <= KEPT * radius) & (scales[:, 2] <= radius))
    if len(kept) == 0:
        kept = np.arange(len(means))
    kept = kept[np.argsort(-covers[kept], kind="stable")][:MOST_SPLATS]
    turn = np.array([[np.cos(AZIMUTH), 0, np.sin(AZIMUTH)], [0, 1, 0], [-np.sin(AZIMUTH), 0, np.cos(AZIMUTH)]])
    similarity = np.eye(4)
    similarity[:3, :3] = _DOWN @ turn @ frame.rotation * (SHOWN / radius)
    similarity[:3, 3] = -similarity[:3, :3] @ centre
    shown = splats[torch.from_numpy(kept)]
    shown.sh = shown.sh[:, :1]
    return transform(shown, similarity)


def thing_radius(distances: Vectors, weights: Vectors, reach: float) -> float:
    """Return the radius that holds most of what lies within ``reach`` of the centre, always above 0.

    Args:
        distances: (N,) from the centre.
        weights: (N,) how much each covers.
        reach: radius of what every camera sees.
    """
    inside = distances <= reach
    if not inside.any() or not weights[inside].sum() > 0:
        inside = np.ones(len(distances), bool)
    order = np.argsort(distances[inside], kind="stable")
    far, covered = distances[inside][order], np.cumsum(weights[inside][order])
    index = int(np.searchsorted(covered, MOST_OF_IT * covered[-1])) if covered[-1] > 0 else len(far) // 2
    radius = float(far[min(index, len(far) - 1)])
    return radius if radius > 0 else max(float(distances.max()), 1e-6)
