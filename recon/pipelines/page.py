"""The page that a pipeline ends with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from recon.capture.capture import Array
from recon.config import paths_of
from recon.evaluate.previews import save_picture
from recon.evaluate.report import write_report
from recon.evaluate.report_data import ReportData
from recon.pipelines.context import Context
from recon.pipelines.stages import make_result


def write_page(context: Context[Any], pipeline: str, hero: Array | None, preview: str = "hero", **parts: Any) -> None:
    """Put it all on one page.

    Args:
        context: of the stage.
        pipeline: its name.
        hero: (H, W, 3) float32 in [0, 1], the picture at the top and the job's preview of that name; None for none.
        preview: see ``hero``.
        parts: what else :class:`~recon.evaluate.ReportData` shall have; its figures are all metrics where it says none.
    """
    if hero is not None:
        with context.preview(f"previews/{preview}.jpg") as path:
            save_picture(path, hero)
    result = make_result(pipeline, context.device, {**context.records, context.stage: context.record})
    parts.setdefault("figures", {name: f"{value:.5g}" for name, value in result["metrics"].items()})
    named = {name: path.name for name, path in paths_of(context.config).items()}  # not where it lies
    data = ReportData(
        title=context.input.stem or "Reconstruction",
        result=result,
        source=context.input.name,
        hero=hero,
        settings=context.config.model_dump(mode="json") | named,
        versions=versions(),
        **parts,
    )
    with context.export("report", "report.html") as path:
        write_report(path, data)


def versions() -> dict[str, str]:
    """Return the versions of what made a result."""
    found = {"python": platform.python_version()}
    for name in ("egregium", "torch", "numpy", "pycolmap"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
