"""The SLURM script, with stand-ins for srun and scontrol that do what those do on one node."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs import ROOT, arguments, run
from utils.errors import UserError

SRUN = """#!/usr/bin/env bash
shift # --kill-on-bad-exit
pids=()
trap 'kill -USR1 "${pids[@]}"' USR1
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_STEP_NUM_TASKS=$SLURM_NTASKS "$@" &
    pids+=($!)
done
for pid in "${pids[@]}"; do while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done; done
exit 1 # the script must not care
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >>"$REQUEUED"; fi
"""
STEADY = ["train.batch_size=8", "optimizer.schedule=constant", "sample.every=0", "log.every=5"]


def submit(folder: Path, tasks: int, *words: str) -> subprocess.Popen:
    """Start the script as SLURM would start it on one node."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "REQUEUED": str(folder / "requeued.txt"),
        "PYTHON": sys.executable, "ACCELERATE_USE_CPU": "1", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_NTASKS": str(tasks),
        "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid()),
    }  # fmt: skip
    output = open(folder / "output.txt", "a")  # noqa: SIM115  (the job's)
    command = ["bash", str(ROOT / "scripts/slurm.sh"), *arguments(folder / "parts", *words, recipe="configs/ring.yaml")]
    return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


def running(folder: Path, tasks: int) -> subprocess.Popen:
    """A job that has done some steps, of a run that goes on for long."""
    output = folder / "output.txt"
    before = len(output.read_text()) if output.exists() else 0
    job, deadline = submit(folder, tasks, *STEADY, "train.steps=100000"), time.monotonic() + 200
    while not re.search(r"^step \d+/", output.read_text()[before:], re.MULTILINE):
        assert job.poll() is None, output.read_text()
        assert time.monotonic() < deadline, "it did no steps"
        time.sleep(0.02)
    return job


def test_a_preempted_job_is_queued_again_and_comes_to_its_end(tmp_path):
    """At a time limit SLURM signals the script, at a preemption the processes of the run.

    Of two tasks; when it is queued again of one, for each costs seconds of imports.
    """
    output, queued = tmp_path / "output.txt", f"requeue {os.getpid()}\n"
    for times, tasks in ((1, 2), (2, 1)):
        job = running(tmp_path, tasks)
        if times == 1:
            job.send_signal(signal.SIGUSR1)
        else:
            os.kill(trainer_of(job), signal.SIGTERM)
        job.wait(120)
        assert (tmp_path / "requeued.txt").read_text() == times * queued, output.read_text()
        assert output.read_text().count("the same command resumes") == times

    assert submit(tmp_path, 1, *STEADY, "train.steps=1").wait(120) == 0  # it is past that
    assert (tmp_path / "requeued.txt").read_text() == 2 * queued
    assert "Finished at step" in output.read_text()


def trainer_of(job: subprocess.Popen) -> int:
    """The process id of one of a job's trainers."""
    processes, found = {}, [job.pid]
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, rest = status.read_text().rsplit(")", 1)
            processes.setdefault(int(rest.split()[1]), []).append((int(status.parent.name), name))
    for parent in found:
        found += [child for child, _ in processes.get(parent, [])]
    return next(pid for siblings in processes.values() for pid, name in siblings if pid in found and "python" in name)


def test_srun_without_addresses_is_refused(tmp_path, monkeypatch):
    """Two tasks that do not know of each other would play the same run twice."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match=r"scripts/slurm\.sh"):
        run(tmp_path)
