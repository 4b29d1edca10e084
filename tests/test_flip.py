"""flip makes the virtual environment once and then stays out of the way. A stand-in for Python notes its calls."""

import os
import subprocess

import pytest

from tests.runs import ROOT

STAND_IN = """#!/usr/bin/env bash
echo "$@" >> {log}
case "$*" in
    *version_info*) exit {too_old} ;;
    "-m venv "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    *"pip install"*) exit ${{PIP_FAILS:-0}} ;;
esac
"""


@pytest.fixture
def flip(tmp_path):
    """Call ./flip with a stand-in for Python; returns exit code, stderr and the stand-in's new calls."""
    log, python = tmp_path / "calls", tmp_path / "python"

    def call(*arguments: str, too_old: int = 0, **environment: str):
        python.write_text(STAND_IN.format(log=log, too_old=too_old))
        python.chmod(0o755)
        log.write_text("")
        variables = {
            **os.environ,
            "FLIPSIDE_PYTHON": str(python),
            "FLIPSIDE_VENV": str(tmp_path / "venv"),
            **environment,
        }
        done = subprocess.run([ROOT / "flip", *arguments], env=variables, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, log.read_text().splitlines()

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
