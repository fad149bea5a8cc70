"""What is found in a capture before anything is reconstructed: the record, and how it reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recon.capture.files import listed


@dataclass(frozen=True)
class Inspection:
    """The findings on a capture; :meth:`to_json` is for programs, :meth:`text` for people.

    Attributes:
        path: what was inspected.
        kind: as :attr:`Capture.kind`; ``deform`` or ``registration``, a surface that deforms.
        pipelines: the pipelines that can run on it.
        photos: number of photos that can be used.
        held_out: how many of them are the capture's own test views.
        sizes: ((width, height, number of photos), …), most frequent first.
        posed: the photos come with camera poses.
        inward: whether the cameras look at a common thing; None without poses.
        masks: ``none``, ``alpha`` (transparency), ``files``, or ``mixed``.
        masked: number of photos that have a mask.
        points: number of structure-from-motion points, of a cloud's, of tracks, or of a source's vertices or points.
        focal: (least, greatest) focal length in pixels, from the poses or from EXIF; None if unknown.
        without_focal: number of photos of unknown focal length.
        blurry: names of the photos much less sharp than the others, least sharp first.
        problems: what would go wrong or be poor, and what to do about it.
        warnings: as :attr:`Capture.warnings`.
        normals: a point cloud brings normals.
        extent: (x, y, z) lengths of a point cloud's box; None of photos.
        names: of the photos that can be used, in the capture's order.
        rejected: (name, why) of the photos that cannot, in words that follow the name.
        masks_empty, masks_full: names of the photos whose mask hides, or shows, all of it.
        root: the folder that the names are relative to; a zip's or a video's is where it was unpacked.
        faces: of a template or source that deforms; 0 of a cloud.
        frames: of a surface that deforms, in its photos or in its tracks alone.
        targets: number of surfaces that a source is laid onto.
        splats: name of the file of splats that a surface carries; empty where there is none.
    """

    path: str
    kind: str
    pipelines: tuple[str, ...]
    photos: int = 0
    held_out: int = 0
    sizes: tuple[tuple[int, int, int], ...] = ()
    posed: bool = False
    inward: bool | None = None
    masks: str = "none"
    masked: int = 0
    points: int = 0
    focal: tuple[float, float] | None = None
    without_focal: int = 0
    blurry: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    normals: bool = False
    extent: tuple[float, float, float] | None = None
    names: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    masks_empty: tuple[str, ...] = ()
    masks_full: tuple[str, ...] = ()
    root: str = ""
    faces: int = 0
    frames: int = 0
    targets: int = 0
    splats: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON-ready values, without what lasts no longer than the program."""
        return {name: value for name, value in asdict(self).items() if name != "root"}

    def text(self) -> str:
        """Return the findings in a few lines for people."""
        if self.kind == "deform":
            return self._of_deform()
        if self.kind == "registration":
            return self._of_registration()
        kinds = {
            **{"photos": "photos", "video": "video", "colmap": "COLMAP project", "transforms": "transforms.json"},
            **{"cloud": "point cloud", "surface": "mesh", "rgbd": "colour and depth images"},
        }
        sizes = [f"{count} of {width} × {height}" for width, height, count in self.sizes]
        focal = "unknown" if self.focal is None else "{:.0f} to {:.0f} pixels".format(*self.focal)
        if self.focal is not None and round(self.focal[0]) == round(self.focal[1]):
            focal = f"{self.focal[0]:.0f} pixels"
        masks = {"none": "none", "alpha": "transparency", "files": "mask files", "mixed": "transparency and mask files"}
        rows = {
            self.path: kinds.get(self.kind, self.kind),
            "photos": f"{self.photos}" + (f", {self.held_out} of them test views" if self.held_out else ""),
            "sizes": listed(sizes),
            "poses": "given" if self.posed else "none, to be estimated",
            "arrangement": {True: "around something", False: "not around one thing", None: ""}[self.inward],
            "focal length": focal,
            "masks": masks[self.masks] + (f", on {self.masked} of {self.photos}" if self.masked else ""),
            "points": f"{self.points:,}" if self.points else "none",
            "pipelines": ", ".join(self.pipelines) or "none",
        }
        if self.extent is not None:
            rows |= {
                "normals": "given" if self.normals else "none, to be estimated",
                "extent": " × ".join(f"{length:.4g}" for length in self.extent),
            }
        if not self.photos:
            rows = {key: rows[key] for key in (self.path, "points", "normals", "extent", "pipelines")}
        return self._lines(rows)

    def _of_deform(self) -> str:
        sizes = [f"{count} of {width} × {height}" for width, height, count in self.sizes]
        return self._lines(
            {
                self.path: "surface that deforms",
                "frames": listed(sizes) if sizes else f"{self.frames:,}, of tracks alone",
                "masks": f"on {self.masked} of {self.photos}" if self.masked else "none",
                "tracks": f"{self.points:,}" if self.points else "none, to be found in the frames",
                "template": f"{self.faces:,} faces" if self.faces else "none",
                "splats": f"{self.splats}, for the surface to carry" if self.splats else "",
                "pipelines": ", ".join(self.pipelines),
            }
        )

    def _of_registration(self) -> str:
        source = f"a mesh of {self.points:,} vertices and {self.faces:,} faces" if self.faces else ""
        return self._lines(
            {
                self.path: "one surface onto another" if self.targets == 1 else "one surface onto others, in time",
                "source": source or f"a cloud of {self.points:,} points",
                "targets": f"{self.targets:,}",
                "pipelines": ", ".join(self.pipelines),
            }
        )

    def _lines(self, rows: dict[str, str]) -> str:
        lines = [f"{key}: {value}" for key, value in rows.items() if value]
        lines += [f"! {problem}" for problem in self.problems]
        lines += [f"- {warning}" for warning in self.warnings]
        return "\n".join(lines)
