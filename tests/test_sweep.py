"""The command sweep.py: what it prints, and the array of SLURM jobs."""

import os
import shlex
import subprocess

import pytest

import sweep
from tests.runs import ROOT, arguments, run
from tests.test_slurm import SCONTROL, SRUN
from utils.errors import UserError
from utils.sweeps.rows import Row

RING = str(ROOT / "configs/ring.yaml")


def test_printed_commands_are_those_of_the_missing_runs(tmp_path, capsys):
    words = arguments(tmp_path, "seed=0,1", recipe="configs/ring.yaml")
    assert run(tmp_path, "run.name=ring-seed=0", recipe="configs/ring.yaml") == 0
    capsys.readouterr()
    assert sweep.main([*words, "--print"]) == 0
    output = capsys.readouterr()
    assert "1 of 2 runs are finished" in output.err
    (command,) = output.out.splitlines()
    assert shlex.split(command) == ["python", "train.py", *words[:-1], "seed=1", "run.name=ring-seed=1"]


def test_an_array_of_jobs_runs_each_row_as_the_script_for_one_run_does(tmp_path, capsys):
    """A stand-in for Python notes its words; the first task is stopped by a signal and queued again."""
    assert sweep.main([RING, f"run.dir={tmp_path}/a b", "seed=0,1", "--slurm"]) == 0
    script = tmp_path / "sweep.sbatch"
    script.write_text(capsys.readouterr().out)
    assert "#SBATCH --array=0-1" in script.read_text()
    directives = [line for line in (ROOT / "scripts/slurm.sh").read_text().splitlines() if line.startswith("#SBATCH")]
    assert [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")][:-1] == directives

    python = (
        f'#!/bin/bash\nprintf "%s\\n" "$@" >{tmp_path}/words$SLURM_ARRAY_TASK_ID\nexit $((75 * !SLURM_ARRAY_TASK_ID))'
    )
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", python)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for task in (0, 1):
        environment = {
            **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "REQUEUED": str(tmp_path / "requeued"),
            "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "localhost",
            "SLURM_JOB_ID": f"{os.getpid()}{task}", "SLURM_ARRAY_TASK_ID": str(task),
        }  # fmt: skip
        subprocess.run(["bash", str(script)], env=environment, check=False, timeout=60)
        words = (tmp_path / f"words{task}").read_text().splitlines()
        assert words == ["train.py", RING, f"run.dir={tmp_path}/a b", f"seed={task}", f"run.name=ring-seed={task}"]
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}0\n"


def test_nothing_is_printed_when_all_is_finished(monkeypatch, capsys):
    monkeypatch.setattr(Row, "is_finished", lambda row: True)
    for option in ("--print", "--slurm"):
        assert sweep.main([RING, "seed=0,1", option]) == 0
        assert capsys.readouterr().out == ""


def test_it_needs_a_job():
    with pytest.raises(UserError, match="--jobs is 0"):
        sweep.main([RING, "--jobs", "0"])
