"""The side *New*: what was found in a capture, and what can be made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from app.page_view import about
from recon import pipelines

KINDS = {
    **{"photos": "photos", "video": "frames of a video", "colmap": "photos of a COLMAP project"},
    **{"transforms": "photos with camera poses", "rgbd": "photos with depth"},
}

WORDS = {
    "splats": "Splats: a scene as it looks, from photos",
    "mesh": "Mesh: one thing, watertight and textured, from photos",
    "points": "Mesh of a point cloud or scan",
    "deform": "Moving surface: a template that bends as a video shows it, or one scan onto another",
}
"""What each pipeline is for."""


def found_text(found: Mapping[str, Any]) -> str:
    """Return what an inspection found, its problems first."""
    photos, points = found["photos"], found["points"]
    if found["kind"] == "deform":
        what = [f"{photos} frames" if photos else f"{found['frames']:,} frames of tracks alone"]
        what.append(f"masks on {found['masked']}" if found["masked"] else "no masks")
        what.append(f"{points:,} point tracks" if points else "point tracks to be found")
        what.append(f"a template of {found['faces']:,} faces" if found["faces"] else "no template")
        what += ["splats for it to carry"] if found["splats"] else []
    elif found["kind"] == "registration":
        what = [f"a mesh of {found['faces']:,} faces" if found["faces"] else f"a cloud of {points:,} points"]
        what.append(
            "to be laid onto a target" if found["targets"] == 1 else f"for {found['targets']:,} targets in time"
        )
    elif photos:
        what = [f"{photos} {KINDS.get(found['kind'], 'photos')}"]
        width, height, _ = found["sizes"][0]
        what.append(f"{width} × {height}")
        what.append("camera poses given" if found["posed"] else "camera poses to be found")
        if found["masked"]:
            what.append(f"masks on {found['masked']}")
    else:
        what = [f"{points:,} points" if found["kind"] == "cloud" else "a mesh"]
        what.append("with normals" if found["normals"] else "normals to be found")
    problems = [*found["problems"], *found["warnings"]]
    items = "".join(f"<li>{escape(text)}</li>" for text in problems)
    notes = f'<ul class="eg-problems">{items}</ul>' if items else ""
    told = f"<p><b>{escape(found['title'])}</b>: {escape(', '.join(what))}.</p>{notes}"
    return f'<div class="eg-found" role="status">{told}</div>'


def cloned_text(title: str) -> str:
    """Return that the form holds a job's capture and settings."""
    told = f"The capture of <b>{escape(title)}</b>, with its settings."
    return f'<div class="eg-found" role="status"><p>{told}</p></div>'


def thumbnails(thumbs: Sequence[Mapping[str, Any]]) -> str:
    """Return small photos in a strip, those that will not be used marked with the reason."""
    parts = []
    for thumb in thumbs:
        why = escape(thumb["reason"])
        mark = f"<figcaption>{why}</figcaption>" if thumb["rejected"] else ""
        name = escape(thumb["name"])
        picture = (
            f'<img alt="{name}" src="data:image/jpeg;base64,{thumb["jpeg"]}">' if thumb["jpeg"] else "<span></span>"
        )
        style, told = " eg-rejected" if thumb["rejected"] else "", f"{name}: {why}" if why else name
        parts.append(f'<figure class="eg-thumb{style}" title="{told}">{picture}{mark}</figure>')
    return f'<div class="eg-strip" tabindex="0" aria-label="The photos">{"".join(parts)}</div>' if parts else ""


def pipeline_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (label, name) of pipelines."""
    return [(WORDS.get(name, pipelines.get(name).summary), name) for name in names]


def preset_choices(presets: Sequence[str], seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return (label, name) of presets, with the time that each may take."""
    return [
        (f"{preset} · about {about(seconds[preset])}" if preset in seconds else preset, preset) for preset in presets
    ]
