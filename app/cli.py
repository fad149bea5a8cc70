"""The command ``recon``. Exit codes: 0 done, 2 wrong usage or bad input, 3 failed, 130 cancelled.

Whatever a subcommand needs is imported inside it, so that ``recon --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.errors import Cancelled, ReconError
from recon.events import Events

if TYPE_CHECKING:
    import argparse

    from app.console import Display
    from app.parser import Parser

BROKEN_PIPE = 141
"""What a shell reports for a program whose reader went away."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            parser = _parser(arguments)
            if not arguments:
                parser.print_help(sys.stderr)
                return 2
            parsed = parser.parse_args(arguments)
            return int(parsed.command(parsed))
        except SystemExit as leaving:  # --help and --version have printed
            sys.stdout.flush()
            return int(leaving.code or 0)
        except BrokenPipeError:
            raise
        except BaseException as exception:
            return _report(_as_error(exception), as_json="--json" in arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor a complaint when Python closes it
        return BROKEN_PIPE


# --- subcommands ---


def run(arguments: argparse.Namespace) -> int:
    """``recon run``: reconstruct into a job directory."""
    from app.flags import given_settings
    from recon import pipelines

    request = pipelines.prepare(
        arguments.input,
        arguments.out,
        arguments.pipeline,
        arguments.preset,
        resume=arguments.resume,
        device=arguments.device,
        file=arguments.config,
        settings=given_settings(arguments),
    )
    from recon.splats import ranks

    with ranks.joined(request.device) as leads:
        if not leads:
            return 0
        with _watched(Events()) as (events, _):
            outcome = request.run(events)
    if arguments.json:
        _print_json(outcome.result)
    if outcome.error is not None:
        return _report(outcome.error)
    if not arguments.json:
        _print_result(outcome.result, request.out)
    return 0


def batch(arguments: argparse.Namespace) -> int:
    """``recon batch``: reconstruct many captures, a job directory each."""
    from app.batch import batch as reconstruct

    return reconstruct(arguments)


def inspect(arguments: argparse.Namespace) -> int:
    """``recon inspect``: what is in an input, what would go wrong, how long it may take."""
    import tempfile

    from recon.capture.inspect import inspect as look
    from recon.pipelines.estimate import estimate_seconds, in_words

    with tempfile.TemporaryDirectory(prefix="recon-") as workdir, _watched(Events()) as (events, _):
        inspection = look(arguments.input, events, Path(workdir))
    seconds = estimate_seconds(inspection)
    if arguments.json:
        _print_json({**inspection.to_json(), "estimated_seconds": seconds})
    else:
        print(inspection.text())
        for pipeline, presets in seconds.items():
            print(f"time on this machine, {pipeline}, estimated: {in_words(presets)}")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """``recon export``: write a job's or a file's splats or mesh in another format."""
    from recon.export import export as write

    with _watched(Events()) as (events, _):
        write(arguments.source, arguments.to, arguments.faces, events, arguments.texture)
    print(arguments.to)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """``recon eval``: measure a job again, or a mesh, alone or against a reference mesh."""
    from recon.pipelines.evaluate import evaluate_job

    with _watched(Events()) as (events, _):
        metrics = evaluate_job(arguments.job, arguments.reference, events)
    if arguments.json:
        _print_json(metrics)
    else:
        print("\n".join(_table(metrics)))
    return 0


def serve(arguments: argparse.Namespace) -> int:
    """``recon serve``: the web page."""
    from app.flags import given_settings
    from app.serve import serve as show
    from recon.settings import load

    show(load(given_settings(arguments), file=arguments.settings))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """``recon doctor``: device, kernels, versions, and what is missing."""
    from recon.doctor import diagnose

    diagnosis = diagnose()
    if arguments.json:
        _print_json(diagnosis.to_json())
    else:
        print(diagnosis.text())
    return 0 if diagnosis.healthy else 3


# --- the parser ---


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    from app.parser import Parser

    parser = Parser(prog="recon", description="3D reconstruction from photos and video, on a laptop's CPU.")
    parser.add_argument("--version", action="version", version=_version(arguments), help="print the version and leave")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)

    command = commands.add_parser("run", help="reconstruct photos, a video or a cloud into a job directory")
    command.set_defaults(command=run)
    # The settings depend on the pipeline, so they become flags only where somebody asks for this command.
    _add_run(command, arguments[1:] if arguments[:1] == ["run"] else None)

    command = commands.add_parser("batch", help="reconstruct many captures: a folder of them, or a manifest")
    command.set_defaults(command=batch)
    _add_batch(command)

    command = commands.add_parser("inspect", help="what is in an input, what would go wrong, how long it may take")
    command.set_defaults(command=inspect)
    command.add_argument("input", metavar="INPUT", type=Path, help="what 'recon run' would be given")
    _add_json(command)

    command = commands.add_parser("export", help="write splats or a mesh in another format, chosen by the suffix")
    command.set_defaults(command=export)
    command.add_argument("source", metavar="JOB|FILE", type=Path, help="a job directory, or a file of splats or a mesh")
    command.add_argument("--to", metavar="FILE", type=Path, required=True, help="the file to write")
    command.add_argument("--faces", metavar="N", type=_positive, help="simplify the mesh to at most N faces")
    command.add_argument("--texture", metavar="N", type=_positive, help="give the mesh a texture of N x N pixels")

    command = commands.add_parser(
        "eval", help="measure a job's result or a mesh: held-out views, the mesh's quality, or against a reference mesh"
    )
    command.set_defaults(command=evaluate)
    command.add_argument("job", metavar="JOB|MESH", type=Path, help="a job directory, or the file of a mesh")
    command.add_argument("--reference", metavar="MESH", type=Path, help="the true mesh, in the input's units")
    _add_json(command)

    command = commands.add_parser("serve", help="show the web page on this machine")
    command.set_defaults(command=serve)
    command.add_argument("--settings", metavar="FILE", type=Path, help="YAML file of these settings")
    if arguments[:1] == ["serve"]:
        from app.flags import add_settings
        from recon.settings import Settings

        add_settings(command, Settings)
        command.epilog = (
            "Every setting may also come from RECON_<SETTING> in the environment; 'recon doctor' shows them."
        )

    command = commands.add_parser("doctor", help="device, kernels, versions, and what is missing")
    command.set_defaults(command=doctor)
    _add_json(command)
    return parser


def _add_run(command: Parser, arguments: Sequence[str] | None) -> None:
    command.add_argument(
        "input", metavar="INPUT", type=Path, help="photos, a zip, a video, a dataset, a cloud, a surface that deforms"
    )
    command.add_argument("--out", metavar="JOB", type=Path, required=True, help="the job directory to make")
    command.add_argument("--preset", metavar="NAME", help="fast, medium or high (default medium)")
    command.add_argument("--device", metavar="NAME", help="cpu (default), cuda, or cuda:1 …")
    command.add_argument("--resume", action="store_true", help="go on with the job if it is there already")
    _add_json(command)
    _add_choosers(command)
    if arguments is None:
        return
    from app.flags import add_settings
    from app.parser import Parser
    from recon import pipelines

    first = Parser(add_help=False)
    _add_choosers(first)
    first.add_argument("--out", type=Path)
    first.add_argument("--resume", action="store_true")
    # What this small parser does not know is the big one's to judge.
    known, _ = super(Parser, first).parse_known_args(list(arguments))
    pipeline = pipelines.select(known.pipeline, known.out, resume=known.resume, file=known.config)
    command.description = f"{pipeline.name}: {pipeline.summary}"
    command.epilog = (
        "Every setting may also come from RECON_<SETTING> in the environment or from a YAML file;\n"
        "flags win over the environment, that over the file, that over the preset."
    )
    add_settings(command, pipeline.config)
    command.elsewhere = _of_pipelines


def _of_pipelines(flag: str) -> str:
    """Return which pipelines a flag is a setting of, nothing if of none."""
    from recon import pipelines

    field = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
    names = [name for name in pipelines.names() if field in pipelines.get(name).config.model_fields]
    return f"It is a setting of --pipeline {' or '.join(names)}." if names else ""


def _add_batch(command: argparse.ArgumentParser) -> None:
    command.epilog = "docs/batch.md explains manifests, the summary, and Ray."
    command.add_argument("source", metavar="MANIFEST|DIR", type=Path, help="a YAML manifest, or a folder of captures")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the job directories")
    command.add_argument("--workers", metavar="N", type=_positive, help="jobs at a time on each device (default 1)")
    command.add_argument("--engine", choices=("local", "ray"), default="local", help="where they run (default local)")
    command.add_argument("--resume", action="store_true", help="go on: what is done is passed over, the rest runs")
    command.add_argument("--pipeline", metavar="NAME", help="for all jobs, in place of what the manifest says")
    command.add_argument("--preset", metavar="NAME", help="for all jobs, in place of what the manifest says")
    command.add_argument("--device", metavar="NAME", help="for all jobs, in place of what the manifest says")
    command.add_argument("--address", metavar="ADDRESS", help="Ray's head node (default RAY_ADDRESS, else one found)")
    command.add_argument("--cpus", metavar="N", type=_positive, help="cores of each job on Ray (default 2)")
    _add_json(command)


def _add_choosers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--pipeline", metavar="NAME", help="splats (the default), mesh, points or deform; each has settings of its own"
    )
    command.add_argument(
        "--config", metavar="FILE", type=Path, help="YAML file of settings, such as a job's config.yaml"
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as JSON on stdout, the rest on stderr")


def _version(arguments: Sequence[str]) -> str:
    if arguments[:1] != ["--version"]:
        return ""  # looking it up takes longer than all the rest of --help
    from recon.doctor import version

    return f"egregium {version('egregium') or '(not installed)'}"


def _positive(text: str) -> int:
    import argparse

    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


# --- what people see ---


@contextmanager
def _watched(events: Events) -> Iterator[tuple[Events, Display]]:
    """Show the events on stderr, and let Ctrl-C and SIGTERM stop them."""
    from app.console import display
    from app.signals import stoppable

    with display(events) as shown:
        text = "Stopping … (Ctrl-C again stops at once; a job can be resumed either way)"
        with stoppable(events, partial(shown.say, text)):
            yield events, shown


def _as_error(exception: BaseException) -> ReconError:
    if isinstance(exception, ReconError):
        return exception
    if isinstance(exception, KeyboardInterrupt):
        return Cancelled(hint="")
    import tempfile

    from recon.pipelines.failures import as_error

    return as_error(exception, Path(tempfile.mkdtemp(prefix="recon-")))


def _report(error: ReconError, as_json: bool = False) -> int:
    """Tell an error and return its exit code."""
    if as_json:
        status = "cancelled" if isinstance(error, Cancelled) else "failed"
        shown = {"code": error.code, "message": error.message, "hint": error.hint}
        _print_json({"version": 1, "status": status, "error": shown})
    with suppress(OSError):
        print(error.message if isinstance(error, Cancelled) else f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


def _print_json(value: Any) -> None:
    from recon.job_files import finite

    print(json.dumps(finite(value), indent=2, allow_nan=False), flush=True)


def _print_result(result: dict[str, Any], job: Path) -> None:
    from app.console import duration, numbers

    counts = {name: count for name, count in result["counts"].items() if count}
    lines = [f"done in {duration(result['seconds']['total'])}, {result['peak_memory_mb']:,.0f} MB of memory at most"]
    lines += [numbers(part) for part in (result["metrics"], counts) if part]
    paths = dict(result["exports"])
    if (job / "report.html").exists():
        paths["report"] = "report.html"
    lines += [f"{name:<10} {job / path}" for name, path in paths.items()]
    print("\n".join(lines), flush=True)


def _table(values: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_table(value, indent + "  ")]
        elif isinstance(value, float):
            lines.append(f"{indent}{name:<16} {value:.5g}")
        elif not isinstance(value, list):
            lines.append(f"{indent}{name:<16} {value}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
