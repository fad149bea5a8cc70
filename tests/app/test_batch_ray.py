"""``recon batch --engine ray``: two nodes, one of them killed midway; nothing is lost, and nothing done twice."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from batch_helpers import has_checkpoint, wait_for

from app.batch_jobs import check
from app.engine_ray import _run
from app.manifest import read
from recon.events import Events
from recon.job import Job

ROOT = Path(__file__).parents[2]
JOBS = 8


def test_without_ray_it_says_how_to_get_it(tmp_path, numbers, recon, monkeypatch):
    manifest = tmp_path / "batch.yaml"
    manifest.write_text("jobs: [{input: numbers, pipeline: toy}]")
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    code, _, said = recon("batch", manifest, "--out", tmp_path / "out", "--engine", "ray", toy=True)
    assert code == 2
    assert "pip install 'egregium[ray]'" in said


def test_a_job_that_another_process_still_writes_is_awaited(tmp_path, numbers, start):
    settings = {"preset": "fast", "steps": 60, "pause": 0.03}
    flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    manifest, out = tmp_path / "batch.yaml", tmp_path / "out"
    manifest.write_text(json.dumps({"jobs": [{"input": "numbers", "pipeline": "toy", **settings}]}))
    with start("run", numbers, "--out", out / "numbers", "--pipeline", "toy", *flags, toy=True) as process:
        wait_for(lambda: has_checkpoint(out / "numbers"))
        (task,) = check(read(manifest, out)[0], out, {}, resume=True)[0]
        assert _run(task, Events())["status"] == "done"
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert ends_of(out / "numbers") == {"read": 1, "walk": 1, "report": 1}


@pytest.mark.slow
def test_ctrl_c_reaches_the_tasks(tmp_path, numbers, start, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    manifest, out = tmp_path / "batch.yaml", tmp_path / "out"
    entries = [f"  - {{input: numbers, name: job{i}, seed: {i}}}\n" for i in range(3)]
    manifest.write_text("defaults: {pipeline: toy, steps: 400, pause: 0.05}\njobs:\n" + "".join(entries))
    with start("batch", manifest, "--out", out, "--engine", "ray", "--cpus", 1, "--workers", 2, toy=True) as process:
        wait_for(lambda: has_checkpoint(out / "job0"), 90)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    print(f"stopped in {time.monotonic() - begun:.1f} s")
    jobs = {job["name"]: job["status"] for job in json.loads((out / "summary.json").read_text())["jobs"]}
    assert set(jobs.values()) == {"cancelled"}
    assert Job.open(out / "job0").result()["status"] == "cancelled"


@pytest.mark.slow
def test_a_node_dies_and_all_jobs_finish_once(tmp_path, numbers, start, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    paths = [str(ROOT / "tests/job"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # of the nodes and their workers
    log = tmp_path / "stages.log"
    monkeypatch.setenv("TOY_LOG", str(log))
    manifest, out = tmp_path / "batch.yaml", tmp_path / "out"
    entries = [f"  - {{input: numbers, name: job{i}, seed: {i}}}\n" for i in range(JOBS)]
    manifest.write_text("defaults: {pipeline: toy, steps: 200, pause: 0.05}\njobs:\n" + "".join(entries))
    cluster = Cluster()
    try:
        options = {"num_cpus": 2, "object_store_memory": 100 << 20}
        cluster.add_node(**options, include_dashboard=False)
        doomed = cluster.add_node(**options)
        flags = ["--engine", "ray", "--address", cluster.address, "--cpus", 1, "--json"]
        with start("batch", manifest, "--out", out, *flags, toy=True) as process:
            victims = wait_for_jobs_on(doomed.node_id[:12], out)
            cluster.remove_node(doomed, allow_graceful=False)
            printed, said = process.communicate(timeout=300)
    finally:
        cluster.shutdown()
    print(said)
    assert process.returncode == 0, said
    summary = json.loads(printed)
    assert [job["status"] for job in summary["jobs"]] == ["done"] * JOBS

    moved = 0
    for i in range(JOBS):
        job = out / f"job{i}"
        events = Job.open(job).events()
        assert ends_of(job) == {"read": 1, "walk": 1, "report": 1}, "no stage of any job was run twice to its end"
        nodes = re.findall(r"begun on .*, node (\w+), process", (out / f"logs/job{i}.log").read_text())
        begins = [
            i for i, event in enumerate(events) if (event["event"], event.get("stage")) == ("StageStarted", "read")
        ]
        if job.name in victims:
            assert nodes[0] != nodes[-1], "it went on elsewhere"
            before, after = steps(events[: begins[-1]]), steps(events[begins[-1] :])
            print(f"{job.name}: on {nodes[0]} to step {before[-1]}, on {nodes[-1]} from step {after[0]}")
            moved += after[0] > 1 and after[0] % 5 == 1  # there is a checkpoint after every fifth
        else:
            assert len(nodes) == 1
    assert moved == len(victims), "each that moved went on from its checkpoint"
    assert Counter(log.read_text().split())["report"] == JOBS


def steps(events: list[dict]) -> list[int]:
    return [event["step"] for event in events if event["event"] == "Progress"]


def ends_of(job: Path) -> Counter[str]:
    """Return how often each stage was run to its end."""
    return Counter(event["stage"] for event in Job.open(job).events() if event["event"] == "StageFinished")


def wait_for_jobs_on(node: str, out: Path) -> list[str]:
    """Return the jobs on a node once each of them has a checkpoint."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        there = [path.stem for path in (out / "logs").glob("*.log") if f"node {node}" in path.read_text()]
        if len(there) > 1 and all(has_checkpoint(out / name) for name in there):
            return there
        time.sleep(0.1)
    raise AssertionError("no job began there")
