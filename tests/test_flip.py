"""flip makes the virtual environment once and then stays out of the way. A stand-in for Python notes its calls."""

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.runs import ROOT

STAND_IN = """#!/usr/bin/env bash
echo "$@" >> {log}
case "$*" in
    *version_info*) exit {too_old} ;;
    "-m venv "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    *"pip install"*) sleep ${{PIP_SLEEPS:-0}}; exit ${{PIP_FAILS:-0}} ;;
esac
"""


@pytest.fixture
def flip(tmp_path):
    """Call ./flip with a stand-in for Python; returns exit code, stderr and the stand-in's new calls."""
    log, python = tmp_path / "calls", tmp_path / "python"

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    def call(*arguments: str, too_old: int = 0, **environment: str):
        text = STAND_IN.format(log=log, too_old=too_old)
        if not python.exists() or python.read_text() != text:  # another call may be reading it
            python.write_text(text)
        python.chmod(0o755)
        before = len(lines())
        variables = {
            **os.environ,
            "FLIPSIDE_PYTHON": str(python),
            "FLIPSIDE_VENV": str(tmp_path / "venv"),
            **environment,
        }
        done = subprocess.run([ROOT / "flip", *arguments], env=variables, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, lines()[before:]

    return call


def installs(calls: list[str]) -> int:
    """How often pip was called."""
    return sum("pip install" in line for line in calls)


def test_first_call_sets_up_and_the_second_only_runs(flip):
    code, said, calls = flip("train.py", "seed=1")
    assert code == 0
    assert "setting up" in said
    assert installs(calls) == 1
    assert calls[-1] == "train.py seed=1"
    assert flip("-m", "pytest") == (0, "", ["-m pytest"])


def test_interrupted_installation_is_taken_up_again(flip):
    code, _, calls = flip("train.py", PIP_FAILS="1")
    assert code != 0
    assert "train.py" not in calls
    code, _, calls = flip("train.py")
    assert code == 0
    assert installs(calls) == 1


def test_too_old_python_is_one_sentence(flip):
    code, said, calls = flip("train.py", too_old=1)
    assert code == 1
    assert "no Python 3.11 or newer" in said
    assert installs(calls) == 0


FOREIGN = {
    "a folder of somebody's": "notes.txt",
    "a hidden file": ".notes",
    "another project's environment": "pyvenv.cfg",
    "one with its own Python": "bin/python",
}


@pytest.mark.parametrize("file", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_with_other_things_is_let_alone(flip, tmp_path, file):
    path = tmp_path / "venv" / file
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    for _ in range(2):  # nor does a refusal make it ours
        code, said, calls = flip("train.py")
        assert code == 1
        assert said.count("\n") == 1
        assert f"{tmp_path / 'venv'} holds other things" in said
        assert "FLIPSIDE_VENV" in said
        assert calls == []
        assert [path.read_text() for path in (tmp_path / "venv").rglob("*") if path.is_file()] == ["mine"]


def test_a_file_in_the_place_of_the_folder_is_let_alone(flip, tmp_path):
    (tmp_path / "venv").write_text("mine")
    code, said, calls = flip("train.py")
    assert (code, calls) == (1, [])
    assert "holds other things" in said
    assert (tmp_path / "venv").read_text() == "mine"


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_empty_folder_will_do(flip, tmp_path, slash):
    (tmp_path / "venv").mkdir()
    assert flip("train.py", FLIPSIDE_VENV=f"{tmp_path}/venv{slash}")[0] == 0
    assert (tmp_path / "venv.lock").exists()


def test_an_environment_of_earlier_requirements_is_brought_up_to_date(flip, tmp_path):
    assert flip("train.py")[0] == 0
    (tmp_path / "venv.lock").unlink()  # earlier versions had none
    (tmp_path / "venv/requirements.installed").write_text("torch<2\n")
    code, _, calls = flip("train.py")
    assert code == 0
    assert installs(calls) == 1


def test_a_second_call_waits_for_the_first(flip, tmp_path):
    """Two tasks of a job that start together: one of them installs, and both run."""
    with ThreadPoolExecutor() as pool:
        first = pool.submit(flip, "train.py", PIP_SLEEPS="2")
        while not (tmp_path / "calls").exists():  # it has the lock
            assert not first.done()
            time.sleep(0.01)
        code, said, _ = flip("train.py")
    assert code == first.result()[0] == 0
    assert "waiting for another call" in said
    calls = (tmp_path / "calls").read_text().splitlines()
    assert installs(calls) == 1
    assert calls.count("train.py") == 2
    assert calls.index(next(line for line in calls if "pip install" in line)) < calls.index("train.py")
