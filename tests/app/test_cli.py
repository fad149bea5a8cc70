"""The command line from outside: exit codes, what goes to stdout and stderr, signals."""

from __future__ import annotations

import io
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from splat_capture import write_capture

from app.cli import main
from kernels.selftest import Check


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("RECON_")]:
        monkeypatch.delenv(name)


# --- as a process ---


def test_help_is_quick_and_complete(recon):
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code, out, err = recon("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert (code, err) == (0, "")
        assert all(f"    {command} " in out for command in ("run", "inspect", "export", "eval", "serve", "doctor"))
    assert min(spent) < 0.3, "seconds of work, which a busy machine does not lengthen; loading torch takes more"


def test_help_loads_nothing_heavy():
    script = "import sys; from app.cli import main; main(['--help']); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "pydantic", "rich"} & set(out.splitlines()[-1].split())


def test_a_batch_and_the_page_begin_without_torch():
    """It takes seconds and is for the processes of their jobs."""
    script = "import sys, app.batch, app.engine_local, app.page; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "kernels"} & set(out.split())


def test_version(recon):
    code, out, _ = recon("--version")
    assert code == 0
    assert out.startswith("egregium ")


def test_ctrl_c_cancels_within_two_seconds(start, numbers, tmp_path):
    job = tmp_path / "job"
    arguments = ("run", numbers, "--pipeline", "toy", "--out", job, "--json", "--pause", "0.05", "--steps", "2000")
    with start(*arguments, toy=True) as process:
        while not (job / "checkpoint/walk").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        while not (job / "result.json").exists() and time.monotonic() - asked < 30:
            time.sleep(0.02)
        assert time.monotonic() - asked < 2
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["status"] == "cancelled"
    assert json.loads((job / "result.json").read_text()) == json.loads(out)
    assert "walk: begins" in err
    assert "Stopping" in err
    assert "--resume" in err
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_error(start):
    reader, writer = os.pipe()
    os.close(reader)
    with start("--help", stdout=writer) as process:
        os.close(writer)
        err = process.communicate(timeout=60)[1]
    assert (process.returncode, err) == (141, "")


# --- in this process ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rum"], ["Unknown command rum", "Did you mean run?"]),
        (["export", "a", "--too", "b"], ["Unknown flag --too", "Did you mean --to?"]),
        (["export", "a", "--to", "b", "--faces", "0"], ["--faces", "above 0"]),
        (["doctor", "--jsn"], ["--json"]),
        (["run", "IN", "--out", "JOB", "--pipeline", "toy", "--stesp", "5"], ["--stesp", "Did you mean --steps?"]),
        (["run", "IN", "--out", "JOB", "--pipeline", "toy", "--stesp=5"], ["Did you mean --steps?"]),
        (["run", "IN", "--out", "JOB", "--target", "b"], ["Unknown flag --target", "setting of --pipeline deform."]),
        (["run", "IN", "--otu", "JOB", "--pipeline", "toy"], ["Did you mean --out?"]),
        (["run", "IN", "--pipeline", "toy"], ["--out"]),
        (["run", "IN", "--out", "JOB", "--pipeline", "tyo"], ["'tyo'", "Did you mean 'toy'?"]),
        (["run", "IN", "--out", "JOB", "--pipeline", "toy", "--steps", "0"], ["'steps'", "from 1 to 10000"]),
        (["run", "IN", "--out", "JOB", "--pipeline", "toy", "--preset", "slow"], ["'slow'", "fast, medium, high"]),
        (["run", "IN", "--out", "JOB", "--pipeline", "toy", "--config", "no.yaml"], ["no.yaml", "Check the path"]),
        (["run", "nowhere", "--out", "JOB", "--pipeline", "toy"], ["nowhere does not exist"]),
        (["run", "IN", "--out", "IN", "--pipeline", "toy"], ["nothing was written"]),
        (["run", "IN", "--out", "JOB", "--pipeline", "toy", "--device", "cuda:77"], ["cuda:77", "doctor"]),
    ],
)
def test_wrong_usage(numbers, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    numbers.rename("IN")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert [word for word in words if word not in err] == []
    assert not Path("JOB").exists()
    assert main([*arguments, "--json"]) == 2
    if "export" not in arguments:  # it has no --json
        assert json.loads(capsys.readouterr().out)["error"]["code"]


def test_wrong_settings_in_the_environment(numbers, tmp_path, monkeypatch, capsys):
    arguments = ["run", str(numbers), "--pipeline", "toy", "--out", str(tmp_path / "job")]
    monkeypatch.setenv("RECON_STEPS", "0")
    assert main(arguments) == 2
    assert "Setting 'steps' is '0' in the environment; it must be a whole number from 1" in capsys.readouterr().err
    assert not (tmp_path / "job").exists()
    monkeypatch.delenv("RECON_STEPS")
    monkeypatch.setenv("RECON_STPES", "7")
    assert main(arguments) == 0
    assert "warning: RECON_STPES sets nothing here; did you mean RECON_STEPS?" in capsys.readouterr().err


def test_run_as_json_has_stdout_alone(numbers, tmp_path, capfd):
    job = tmp_path / "job"
    assert main(["run", str(numbers), "--pipeline", "toy", "--out", str(job), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == json.loads((job / "result.json").read_text())
    assert "walk: begins" in err
    assert "warning: one number looks odd" in err


def test_bars_on_a_terminal(numbers, tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["run", str(numbers), "--pipeline", "toy", "--out", str(tmp_path / "job")]) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "✓ walk" in text
    assert "psnr" in text
    assert "warning: one number looks odd" in text
    out = capsys.readouterr().out
    assert "done in" in out
    assert "exports/report.txt" in out


def test_doctor_as_json_and_as_text(monkeypatch, capsys):
    monkeypatch.setenv("RECON_STEPS", "7")
    monkeypatch.setenv("RECON_MAX_FILES", "9")
    monkeypatch.setenv("RECON_PASSWORD", "a word")
    monkeypatch.setenv("RECON_PRT", "1")
    code = main(["doctor", "--json"])
    diagnosis = json.loads(capsys.readouterr().out)
    assert code == (0 if diagnosis["healthy"] else 3)
    assert diagnosis["cpu"]["cores"] >= 1
    assert diagnosis["memory_mb"]["total"] >= diagnosis["memory_mb"]["available"] > 0
    assert diagnosis["packages"]["torch"]
    assert diagnosis["kernels"].keys() >= {"built", "isa"}
    assert diagnosis["kernels"]["tested"]["cpu"] == {}
    assert diagnosis["gpu"].keys() == (
        {"missing"} if diagnosis["gpu"].get("missing") else {"name", "memory_mb", "kernels"}
    )
    assert diagnosis["environment"] == {"RECON_PRT": "1", "RECON_STEPS": "7"}
    assert diagnosis["settings"]["max_files"] == {"value": "9", "origin": "RECON_MAX_FILES"}
    assert diagnosis["settings"]["max_megapixels"] == {"value": "100.0", "origin": "default"}
    assert main(["doctor"]) == code
    text = capsys.readouterr().out
    assert "torch " in text
    assert "RECON_STEPS " in text
    assert re.search(r"^max_files +9 \(RECON_MAX_FILES\)$", text, re.M)
    assert re.search(r"^password +set \(RECON_PASSWORD\)$", text, re.M)
    assert "a word" not in text
    assert re.findall("RECON_.* sets nothing.*", text) == ["RECON_PRT sets nothing here; did you mean RECON_PORT?"]


def test_doctor_survives_broken_settings(tmp_path, monkeypatch, capsys):
    (tmp_path / "own.yaml").write_text("max_filse: 3\n")
    monkeypatch.setenv("RECON_SETTINGS", str(tmp_path / "own.yaml"))
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert re.search(r"problem: The settings cannot be read: Unknown setting 'max_filse' in .*own\.yaml", out)
    assert "hint: Did you mean 'max_files'?" in out


def test_doctor_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("recon.doctor.version", lambda name: None if name == "pycolmap" else "1.0")
    monkeypatch.setitem(sys.modules, "kernels._cpu", None)  # as if it had not been built
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "problem: The package pycolmap is missing." in out
    assert "problem: The compiled kernels do not load" in out


def test_doctor_says_which_kernel_is_wrong(monkeypatch, capsys):
    checks = [
        Check("nearest", 0.1, 0.02),
        Check("ssim", 0.1, 1e-7),
        Check("texture", 0.1, math.inf, "RuntimeError: no"),
    ]
    monkeypatch.setattr("kernels.selftest.self_test", lambda device: checks)
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert re.search(r"^kernels +built, \w+; wrong on the processor$", out, re.M)
    assert "problem: nearest does not give what it should on cpu: off by 0.02 of the largest value." in out
    assert "problem: texture does not give what it should on cpu: RuntimeError: no." in out
    assert "ssim does" not in out


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


def test_inspect_says_how_long_each_preset_may_take(tmp_path, capsys):
    capture = write_capture(tmp_path / "in")
    assert main(["inspect", str(capture)]) == 0
    out = capsys.readouterr().out
    for pipeline in ("splats", "mesh"):
        words = rf"time on this machine, {pipeline}, estimated: fast \d+ min, medium \d+ min, high \d+ min"
        assert re.search(words, out)
    assert main(["inspect", str(capture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["photos"] == 14
    assert found["estimated_seconds"].keys() == {"splats", "mesh"}
    assert all(presets.keys() == {"fast", "medium", "high"} for presets in found["estimated_seconds"].values())


def test_settings_in_the_help(capsys):
    assert main(["run", "--pipeline", "toy", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Walk: --steps N Steps of the walk. (1 to 10000; default 40, fast 10, high 80)" in out
    assert "--loud, --no-loud" in out


def test_flags_reach_the_job_and_bad_input_exits_with_2(numbers, tmp_path, capsys):
    job = tmp_path / "job"
    flags = ["--pipeline", "toy", "--out", str(job), "--preset", "fast"]
    assert main(["run", str(numbers), *flags, "--loud", "--title", "a title", "--formats", "txt,md"]) == 0
    text = (job / "config.yaml").read_text()
    assert "steps: 10\n" in text
    assert "loud: true\n" in text
    assert "formats: [txt, md]\n" in text
    assert (job / "exports/report.txt").read_text().startswith("a title ")
    (tmp_path / "empty").mkdir()
    flags[3] = str(tmp_path / "job2")
    capsys.readouterr()
    assert main(["run", str(tmp_path / "empty"), *flags]) == 2
    assert "error: " in capsys.readouterr().err


def test_a_defect_exits_with_3_and_keeps_its_traceback_to_itself(numbers, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOY_TROUBLE", "defect")
    assert main(["run", str(numbers), "--pipeline", "toy", "--out", str(tmp_path / "job")]) == 3
    err = capsys.readouterr().err
    assert "error.log" in err
    assert "Traceback" not in err


def test_export_and_eval_hand_over_and_report(tmp_path, monkeypatch, capsys):
    calls = []

    def export(source, to, faces, events, texture):
        calls.append((source, to, faces, texture))

    def evaluate_job(job, reference, events):
        if reference is None:
            raise ZeroDivisionError("outside a job")
        return {"metrics": {"psnr": 31.25, "nan": float("nan")}, "views": 8}

    monkeypatch.setitem(sys.modules, "recon.export", types.SimpleNamespace(export=export))
    monkeypatch.setitem(sys.modules, "recon.pipelines.evaluate", types.SimpleNamespace(evaluate_job=evaluate_job))
    assert main(["export", "job", "--to", "a.obj", "--faces", "500", "--texture", "64"]) == 0
    assert calls == [(Path("job"), Path("a.obj"), 500, 64)]
    capsys.readouterr()
    assert main(["eval", "job", "--reference", "m.ply", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"psnr": 31.25, "nan": None}
    assert main(["eval", "job", "--reference", "m.ply"]) == 0
    assert "psnr             31.25" in capsys.readouterr().out
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["eval", "job"]) == 3
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (log,) = tmp_path.rglob("error.log")
    assert str(log) in err
    assert "ZeroDivisionError" in log.read_text()
