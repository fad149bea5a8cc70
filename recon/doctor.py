"""What this machine offers and what is missing, for a person who wonders why something does not work or is slow."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recon import pipelines
from recon.config import ENVIRONMENT, unused_environment
from recon.errors import InputError, ReconError
from recon.pipelines.devices import MESH_BACKEND, find_device, mesh_backend
from recon.settings import FILE, SECRET, Settings, origins

REQUIRED = (
    *("torch", "numpy", "pillow", "pydantic", "pyyaml", "rich", "safetensors", "trimesh", "scipy"),
    *("av", "pycolmap", "opencv-python-headless", "fast-simplification", "scikit-image", "xatlas", "lxml", "gradio"),
)
OPTIONAL = {
    "triton": "kernels on a GPU (pip install 'egregium[gpu]')",
    "diffrp-nvdiffrast": "NVIDIA's mesh rasterizer, of no commercial use (pip install 'egregium[nvdiffrast]')",
    "ray": "batches on several machines (pip install 'egregium[ray]')",
}
LITTLE_MEMORY_MB = 3_000
LITTLE_DISK_MB = 2_000
_WRONG = {
    "cpu": "Please report it, with all that is said here; EGREGIUM_ISA=baseline may help meanwhile.",
    "cuda": "Use --device cpu, and please report it, with all that is said here.",
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong: ``fatal`` if nothing can be reconstructed before it is mended."""

    message: str
    hint: str
    fatal: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """The state of the machine; sizes in MiB.

    Attributes:
        versions: of Egregium, Python and the operating system.
        cpu: model, cores that this process may use, threads that torch uses.
        memory_mb, disk_mb: total and available (the disk of the working directory).
        gpu: its ``name`` and memory, and what the ``kernels`` there are; or ``missing``, why it cannot be used.
        kernels: whether the compiled kernels load, the instruction set in use, and where they were tested, what failed.
        packages: versions, None where missing; ``optional`` likewise.
        video: the codec library that reads video.
        settings: of the machine, each with its value and where that came from.
        environment: other ``RECON_…`` variables.
        problems: what is wrong.
    """

    versions: dict[str, str]
    cpu: dict[str, Any]
    memory_mb: dict[str, int]
    disk_mb: dict[str, int]
    gpu: dict[str, Any]
    kernels: dict[str, Any]
    packages: dict[str, str | None]
    optional: dict[str, str | None]
    video: str | None
    settings: dict[str, dict[str, str]]
    environment: dict[str, str]
    problems: tuple[Problem, ...] = field(default_factory=tuple)

    @property
    def healthy(self) -> bool:
        """Whether everything can work that needs no option."""
        return not any(problem.fatal for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "healthy": self.healthy}

    def text(self) -> str:
        """Return the diagnosis for people."""
        cpu, memory, disk = self.cpu, self.memory_mb, self.disk_mb
        kernel = "missing"
        if self.kernels["built"]:
            kernel = f"built, {self.kernels['isa']}; {_told(self.kernels.get('tested', {})) or 'not tested'}"
        gpu = (
            f"none: {self.gpu['missing']}"
            if "missing" in self.gpu
            else "{name}, {memory_mb:,} MB; {kernels}".format(**self.gpu)
        )
        rows = [
            *self.versions.items(),
            ("processor", f"{cpu['model']}, {cpu['cores']} cores, torch uses {cpu['threads']} threads"),
            ("memory", f"{memory['available']:,} of {memory['total']:,} MB available"),
            ("disk", f"{disk['available']:,} of {disk['total']:,} MB available here"),
            ("gpu", gpu),
            ("kernels", kernel),
            ("video", self.video or "missing"),
            *((name, found or "missing") for name, found in self.packages.items()),
            *((name, found or f"not installed; for {OPTIONAL[name]}") for name, found in self.optional.items()),
            *((name, f"{entry['value']} ({entry['origin']})") for name, entry in self.settings.items()),
            *self.environment.items(),
        ]
        lines = [f"{name:<24} {value}" for name, value in rows]
        for problem in self.problems:
            lines += ["", f"{'problem' if problem.fatal else 'note'}: {problem.message}", f"hint: {problem.hint}"]
        return "\n".join(lines if self.problems else [*lines, "", "Nothing is missing."])


def diagnose(environment: Mapping[str, str] | None = None) -> Diagnosis:
    """Look at the machine; raises nothing, whatever is missing."""
    environment = os.environ if environment is None else environment
    packages = {name: version(name) for name in REQUIRED}
    problems = [
        Problem(f"The package {name} is missing.", "Install Egregium again: pip install egregium")
        for name, found in packages.items()
        if found is None
    ]
    kernels = _kernels()
    if not kernels["built"]:
        problems.append(Problem(f"The compiled kernels do not load: {kernels['error']}", "Install Egregium again."))
    gpu = _gpu()
    if wrong := _wrong_device(environment):
        problems.append(wrong)
    elif kernels["built"]:
        kernels["tested"] = _tested("missing" not in gpu)
        problems += [
            Problem(f"{name} does not give what it should on {device}: {what}.", _WRONG[device], device == "cpu")
            for device, failed in kernels["tested"].items()
            for name, what in failed.items()
        ]
    memory, disk = _memory_mb(), _disk_mb()
    if 0 < memory["available"] < LITTLE_MEMORY_MB:
        problems.append(Problem("Little memory is free.", "Close other programs, or use --preset fast.", fatal=False))
    if 0 < disk["available"] < LITTLE_DISK_MB:
        problems.append(
            Problem("The disk here is almost full.", "Free some space, or give --out elsewhere.", fatal=False)
        )
    told: dict[str, tuple[str, str]] = {}
    try:
        told = origins(environment)
    except ReconError as error:
        problems.append(Problem(f"The settings cannot be read: {error.message}", error.hint))
    known = {FILE, *(f"{ENVIRONMENT}{name.upper()}" for name in told)}
    fields = [name for pipeline in pipelines.names() for name in pipelines.get(pipeline).config.model_fields]
    for warning in unused_environment(Settings, environment, [*fields, *pipelines.HEADER, "settings", MESH_BACKEND]):
        problems.append(Problem(warning, "Names are RECON_ and a setting's name in capitals.", fatal=False))
    return Diagnosis(
        versions={
            "egregium": version("egregium") or "not installed",
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        cpu={"model": _processor(), "cores": _cores(), "threads": _threads()},
        memory_mb=memory,
        disk_mb=disk,
        gpu=gpu,
        kernels=kernels,
        packages=packages,
        optional={name: version(name) for name in OPTIONAL},
        video=_video(),
        settings={name: {"value": value, "origin": origin} for name, (value, origin) in told.items()},
        environment={
            key: "set" if key.lower().endswith(SECRET) else value
            for key, value in sorted(environment.items())
            if key.startswith(ENVIRONMENT) and key not in known
        },
        problems=tuple(problems),
    )


def version(package: str) -> str | None:
    """Return the version of an installed distribution, None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _kernels() -> dict[str, Any]:
    try:
        import kernels._cpu as _cpu
    except ImportError as error:
        return {"built": False, "isa": None, "error": str(error)}
    return {"built": True, "isa": _cpu.isa(), "available": list(_cpu.available_isas())}


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _threads() -> int:
    try:
        import torch
    except ImportError:
        return 0
    return torch.get_num_threads()


def _tested(gpu: bool) -> dict[str, dict[str, str]]:
    """Return of each device the operations that are wrong there, and how."""
    from kernels.selftest import self_test

    return {
        device: {
            check.name: check.error or f"off by {check.off:.2g} of the largest value"
            for check in self_test(device)
            if not check.passed
        }
        for device in ("cpu", *(["cuda"] if gpu else []))
    }


def _told(tested: Mapping[str, Mapping[str, str]]) -> str:
    where = {"cpu": "the processor", "cuda": "the GPU"}
    return ", ".join(f"{'wrong' if failed else 'right'} on {where[device]}" for device, failed in tested.items())


def _gpu() -> dict[str, Any]:
    try:
        import torch

        if torch.version.cuda is None and torch.version.hip is None:
            return {"missing": f"PyTorch {torch.__version__} is a build for the processor alone"}
        if not torch.cuda.is_available():
            return {"missing": "PyTorch finds no GPU; is its driver installed, and new enough?"}
        if find_spec("triton") is None:
            return {"missing": f"{torch.cuda.get_device_name(0)} needs Triton: pip install 'egregium[gpu]'"}
        properties = torch.cuda.get_device_properties(0)
        kernels = "kernels in Triton; use it by --device cuda"
        return {"name": properties.name, "memory_mb": properties.total_memory >> 20, "kernels": kernels}
    except (ImportError, RuntimeError) as error:
        return {"missing": str(error)}


def _wrong_device(environment: Mapping[str, str]) -> Problem | None:
    """Return what is wrong with the device that the environment asks for."""
    try:
        device = find_device(environment.get(f"{ENVIRONMENT}DEVICE", "cpu"))
        mesh_backend(environment.get(f"{ENVIRONMENT}{MESH_BACKEND.upper()}"), device)
    except InputError as error:
        return Problem(error.message, error.hint)
    except ImportError:  # torch is missing, which is told
        pass
    return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_mb() -> dict[str, int]:
    """Return total and available memory; 0 where the system does not tell. A container's limit counts."""
    total = available = 0
    try:
        kilobytes = {}
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, value = line.split(":", 1)
            kilobytes[name] = int(value.split()[0])
        total, available = kilobytes["MemTotal"] >> 10, kilobytes["MemAvailable"] >> 10
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text()) >> 20
        used = int(Path("/sys/fs/cgroup/memory.current").read_text()) >> 20
        if limit < total:
            total, available = limit, max(0, min(available, limit - used))
    except (OSError, ValueError, KeyError, IndexError):
        if not total and "SC_PHYS_PAGES" in os.sysconf_names:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return {"total": total, "available": available or total}


def _disk_mb() -> dict[str, int]:
    try:
        usage = shutil.disk_usage(Path.cwd())
    except OSError:
        return {"total": 0, "available": 0}
    return {"total": usage.total >> 20, "available": usage.free >> 20}


def _video() -> str | None:
    try:
        import av
    except ImportError:
        return None
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__} with libavcodec {codec}"
