"""The findings on surfaces that deform: before a camera, or from one scan to others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from recon.capture.deform_folder import DeformCapture
from recon.capture.inspection import Inspection
from recon.capture.mesh_file import MeshObject
from recon.capture.registration import RegistrationCapture


def inspect_deform(path: Path, capture: DeformCapture) -> Inspection:
    """Return the findings on a surface that deforms, found at ``path``."""
    sizes = Counter((view.width, view.height) for view in capture.views).most_common()
    masked = sum(view.load().mask is not None for view in capture.views[:1]) * len(capture.views)  # of all or of none
    frames, tracks = (len(capture.views), 0) if capture.tracks is None else capture.tracks.xy.shape[:2]
    return Inspection(
        path=str(path),
        kind="deform",
        pipelines=("deform",),
        photos=len(capture.views),
        sizes=tuple((width, height, count) for (width, height), count in sizes),
        posed=True,
        masks="files" if masked else "none",
        masked=masked,
        points=tracks,
        focal=(float(capture.K[0, 0]), float(capture.K[0, 0])),
        warnings=capture.warnings,
        names=tuple(view.name for view in capture.views),
        root=str(capture.root),
        faces=0 if capture.template is None else len(capture.template.faces),
        frames=frames,
        splats="" if capture.splats is None else capture.splats.name,
    )


def inspect_registration(path: Path, capture: RegistrationCapture) -> Inspection:
    """Return the findings on a source and its targets, of which the first one is read."""
    source = capture.read(capture.source)
    capture.read(capture.targets[0])
    points, faces = (source.vertices, source.faces) if isinstance(source, MeshObject) else (source.xyz, ())
    return Inspection(
        path=str(path),
        kind="registration",
        pipelines=("deform",),
        points=len(points),
        faces=len(faces),
        targets=len(capture.targets),
    )
