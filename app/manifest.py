"""What ``recon batch`` is given, a folder of captures or a manifest, as jobs that were all checked before one begins.

::

    defaults: {pipeline: splats, preset: fast, steps: 500}   # of the settings, each job takes those it has
    jobs:
      - input: scans/*.ply        # relative to the manifest; each match is a job named after its file
        pipeline: points
      - input: photos/chair
        name: chair
        max_side: 800

What the manifest says wins over the environment, a flag of ``recon batch`` over the manifest. Where nothing names a
pipeline, clouds and meshes get ``points``, folders of surfaces that deform ``deform`` and all else ``splats``. Paths
among the settings are relative to the manifest, too.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recon.capture.cloud import cloud_suffix, find_clouds
from recon.capture.deform_folder import is_deform
from recon.capture.files import CAMERA_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_junk, listed, numbered, walk
from recon.capture.registration import is_registration
from recon.config import ENVIRONMENT, nearest, read_yaml
from recon.errors import InputError
from recon.events import Events
from recon.job import is_job

CHOOSERS = ("pipeline", "preset", "device")
KEYS = ("input", "name", *CHOOSERS)
RESERVED = ("logs", "summary.json", "summary.html", "ray.log")
"""What else lies beside the jobs."""

MAX_NAME = 100
_EXAMPLE = "Write 'jobs:' and below it '- input: PATH' for each capture; see docs/batch.md."


@dataclass(frozen=True)
class Entry:
    """One job as it was asked for, not checked yet.

    Attributes:
        name: of its folder.
        input: the capture, absolute.
        where: how messages call the entry.
        choices: pipeline, preset and device, those that it names.
        settings: its own.
        defaults: of all jobs of the manifest; of them it takes the settings that its pipeline has.
        base: where relative paths among the settings begin.
    """

    name: str
    input: Path
    where: str
    choices: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    base: Path = Path()

    def pipeline(self, flag: str | None) -> str | None:
        """Return the name of its pipeline; None where it is left to :func:`recon.pipelines.prepare`."""
        if given := flag or self.choices.get("pipeline"):
            return given
        if os.environ.get(f"{ENVIRONMENT}PIPELINE"):
            return None
        if self.input.exists() and (is_deform(self.input) or (self.input.is_dir() and is_registration(self.input))):
            return "deform"
        return "points" if _is_cloud(self.input) else None


def read(source: Path, out: Path) -> tuple[list[Entry], list[str]]:
    """Return the jobs that ``source`` asks for, in order, and warnings about what in it is none.

    Args:
        source: a folder of captures, or a manifest.
        out: where the jobs go; what lies there is no capture.

    Raises:
        InputError: nothing to do, an entry that is none, an input that is not there, two jobs of one name.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist.", "Check the path of the manifest or folder.", "no-input")
    warnings: list[str] = []
    if source.is_dir():
        entries = _of_folder(source, out.resolve(), warnings)
    elif source.suffix.lower() in (".yaml", ".yml", ".json"):
        entries = _of_manifest(source, out.resolve())
    else:
        raise InputError(
            f"{source} is neither a folder of captures nor a manifest (.yaml).",
            "One capture alone is reconstructed by 'recon run'.",
            "bad-manifest",
        )
    _check_names(entries)
    return entries, warnings


# --- a folder ---


def _of_folder(folder: Path, out: Path, warnings: list[str]) -> list[Entry]:
    paths = sorted((path for path in folder.iterdir() if not is_junk(path.name)), key=numbered)
    if any(path.name in ("transforms.json", "transforms_train.json") for path in paths):
        raise InputError(
            f"{folder} is one capture, not a folder of captures.", "Reconstruct it with 'recon run'.", "one-capture"
        )
    paths = [path for path in paths if not _is_ours(path, out)]
    captures = [path for path in paths if _is_capture(path)]
    if skipped := [path.name for path in paths if path not in captures]:
        warnings.append(f"Skipped, as there is nothing to reconstruct in them: {listed(skipped, 10)}.")
    if not captures:
        raise InputError(
            f"{folder} holds no capture.",
            "Give a folder of captures: folders of photos, zips, videos, clouds. One alone is for 'recon run'.",
            "no-captures",
        )
    names = _names(captures, folder)
    return [Entry(name, path.absolute(), str(path)) for name, path in zip(names, captures, strict=True)]


def _is_ours(path: Path, out: Path) -> bool:
    """Return whether a path is the batch's own folder, a job, or a folder of jobs."""
    if not path.is_dir():
        return False
    return path.resolve() == out or is_job(path) or any(is_job(child) for child in path.iterdir())


def _is_capture(path: Path) -> bool:
    """Return whether there is something to reconstruct; by the names of the files alone."""
    if path.is_dir():
        return any(file.suffix.lower() in IMAGE_SUFFIXES | CAMERA_SUFFIXES or _single(file) for file in _files(path))
    return _single(path) or path.suffix.lower() == ".zip"


def _single(file: Path) -> bool:
    suffix = cloud_suffix(file)  # texts and tables may be anything
    return file.suffix.lower() in VIDEO_SUFFIXES or suffix not in ("", ".txt", ".csv")


def _is_cloud(path: Path) -> bool:
    return bool(find_clouds(path, Events())) if path.is_dir() else bool(cloud_suffix(path))


def _files(folder: Path) -> Iterable[Path]:
    return walk(folder, Events())


# --- a manifest ---


def _of_manifest(manifest: Path, out: Path) -> list[Entry]:
    try:
        content = read_yaml(manifest)
    except InputError as error:
        raise InputError(error.message, _EXAMPLE, error.code) from None
    refuse_unknown(content, ("defaults", "jobs"), str(manifest))
    defaults, jobs = content.get("defaults") or {}, content.get("jobs")
    if not isinstance(defaults, dict):
        raise InputError(f"{manifest}: 'defaults' is not a list of settings.", "Write one 'name: value' a line.")
    for key in ("input", "name"):
        if key in defaults:
            raise InputError(f"{manifest}, defaults: '{key}' is each job's own.", f"Move '{key}' to the jobs.")
    if not isinstance(jobs, list) or not jobs:
        raise InputError(f"{manifest} asks for no job.", _EXAMPLE, "bad-manifest")
    entries = []
    for number, job in enumerate(jobs, start=1):
        entries += _of_job(job, defaults, f"{manifest}, job {number}", manifest.parent, out)
    return entries


def _of_job(job: Any, defaults: Mapping[str, Any], where: str, base: Path, out: Path) -> list[Entry]:
    """Return the jobs of one entry of the manifest: as many as inputs that its pattern matches."""
    if not isinstance(job, dict) or not isinstance(job.get("input"), str):
        raise InputError(f"{where} has no 'input'.", _EXAMPLE, "bad-manifest")
    pattern = job["input"]
    where = f"{where} ({pattern})"
    paths = _inputs(pattern, where, base, out)
    choices = {}
    for key in CHOOSERS:
        if (value := job.get(key, defaults.get(key))) is not None:
            if not isinstance(value, str):
                raise InputError(f"{where}: '{key}' is {value!r}; it must be a name.", "", "bad-manifest")
            choices[key] = value
    names = _names(paths, base)
    if (name := job.get("name")) is not None:
        if len(paths) > 1:
            raise InputError(
                f"{where}: 'name' is for one input, and {len(paths)} match.",
                "Leave 'name' out: each job is named after its file.",
                "bad-manifest",
            )
        if not isinstance(name, str) or name != _clean(name):
            raise InputError(
                f"{where}: the name {name!r} cannot name a folder.", "Use letters, digits, '-' and '_'.", "bad-manifest"
            )
        names = [name]
    settings = {key: value for key, value in job.items() if key not in KEYS}
    general = {key: value for key, value in defaults.items() if key not in KEYS}
    return [
        Entry(name, path, where if len(paths) == 1 else f"{where}, {path.name}", choices, settings, general, base)
        for name, path in zip(names, paths, strict=True)
    ]


def _inputs(pattern: str, where: str, base: Path, out: Path) -> list[Path]:
    literal = Path(os.path.normpath(base.absolute() / pattern))
    if literal.exists():
        return [literal]
    if not glob.has_magic(pattern):
        raise InputError(f"{where}: there is no {literal}.", "Paths are relative to the manifest.", "no-input")
    names = glob.glob(pattern, root_dir=base, recursive=True)  # noqa: PTH207 Path's finds hidden ones, too
    paths = {Path(os.path.normpath(base.absolute() / name)) for name in names}
    found = sorted((path for path in paths if not _is_ours(path, out)), key=numbered)
    if not found:
        raise InputError(f"{where}: nothing matches.", "Patterns are relative to the manifest.", "no-input")
    return found


# --- names and keys ---


def _names(paths: Sequence[Path], base: Path) -> list[str]:
    """Return a folder name for each path: its own without the suffix, and as much more as tells it from the others."""
    relative = [Path(os.path.relpath(path, base)) for path in paths]
    stems = [_clean(_stem(path)) for path in paths]
    longer = [_clean("-".join((*r.parts[:-1], _stem(path)))) for r, path in zip(relative, paths, strict=True)]
    whole = [_clean("-".join(r.parts)) for r in relative]
    names = []
    for choices in zip(stems, longer, whole, strict=True):
        unique = (
            name for name, among in zip(choices, (stems, longer, whole), strict=True) if Counter(among)[name] == 1
        )
        names.append(next(unique, choices[-1]))
    return names


def _stem(path: Path) -> str:
    if path.is_dir():
        return path.name
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def _clean(name: str) -> str:
    """Return ``name`` as a folder name that is harmless on any disk and terminal."""
    clean = "".join(sign if sign.isprintable() and sign not in '/\\:*?"<>|' else "_" for sign in name)
    return clean.strip().lstrip(".-")[:MAX_NAME].strip() or "job"


def _check_names(entries: Sequence[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        name = entry.name.casefold()  # disks there are that see no difference
        if name in RESERVED:
            raise InputError(f"{entry.where}: a job cannot be named '{entry.name}'.", "Give it another 'name'.")
        if name in seen:
            raise InputError(
                f"{entry.where}: a job named '{entry.name}' is there already, of {seen[name].where}.",
                "Give one of them another 'name' in a manifest.",
                "same-name",
            )
        seen[name] = entry


def refuse_unknown(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise an error that names the nearest known key, where ``content`` has one that is not known."""
    for key in content:
        if key not in known:
            near = nearest(str(key), known)
            hint = f"Did you mean '{near}'?" if near else f"Known are: {', '.join(sorted(known))}."
            raise InputError(f"{where}: unknown key '{key}'.", hint, "unknown-setting")
