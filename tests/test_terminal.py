"""What a terminal does to a run: Ctrl-C at bad moments, and encodings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs import ROOT, arguments

STUCK = """
import sys, time
sys.path.insert(0, {root!r})
import train
train.checkpoint.save = lambda *_: [print("stuck", flush=True), time.sleep(600)]
sys.argv = ["train.py", *{words!r}]
train.errors.run(train.main)
"""


def interruptible(*command: str) -> subprocess.Popen:
    """A process that heeds Ctrl-C even where these tests are a shell's background job, which does not."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipes)


def test_a_second_interrupt_ends_a_run_whose_disk_hangs(tmp_path):
    """Nothing waits for the thread that writes, neither the loop nor Python's own end."""
    words = arguments(tmp_path, "train.steps=100000", "checkpoint.every=1", recipe="configs/ring.yaml")
    script = STUCK.format(root=str(ROOT), words=words)
    with interruptible(sys.executable, "-c", script) as process:
        while b"stuck" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=20)[1]
    assert process.returncode == 130, error.decode()
    assert b"Traceback" not in error


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_an_interrupt_during_the_imports_shows_no_trace(tmp_path, seconds):
    with interruptible(sys.executable, str(ROOT / "train.py"), *arguments(tmp_path)) as process:
        while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT  # for a shell 130
    assert (output, error) == (b"", b"")


TRAINED_AND_MEASURED = """
import sys
sys.path.insert(0, {root!r})
import evaluate, train
train.errors.run(lambda _: train.main({words!r}) or evaluate.main([{run!r}]))
"""


def test_a_terminal_that_is_not_utf_8_shows_what_it_can(tmp_path):
    """Metrics of the ring are called after σ; files are in UTF-8 whatever the terminal is."""
    words = arguments(tmp_path, "evaluate.every=6", "evaluate.samples=64", recipe="configs/ring.yaml")
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "LC_ALL": "C", "PYTHONUTF8": "0"}
    environment["PYTHONCOERCECLOCALE"] = "0"
    command = [sys.executable, "-c", TRAINED_AND_MEASURED.format(root=str(ROOT), words=words, run=f"{tmp_path}/ring")]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("latin-1")
    trained, _, measured = done.stdout.partition(b"Finished at step")
    assert b"?" in trained
    assert b"?" in measured
    assert "σ" in (tmp_path / "ring/log.txt").read_text(encoding="utf-8")
