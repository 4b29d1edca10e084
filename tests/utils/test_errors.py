"""Mistakes of the user: one sentence on stderr, exit code 2, no stack trace."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.errors import UserError, check_name, nearest, run, warn

ROOT = Path(__file__).parents[2]


def test_a_known_name_passes():
    check_name("x.name", "b", ["a", "b"])


@pytest.mark.parametrize("valid", [["alpha", "beta"], ("beta", "alpha"), {"alpha": 1, "beta": 2}, {"beta", "alpha"}])
def test_an_unknown_name_is_named_with_the_nearest_and_all_others(valid):
    with pytest.raises(UserError) as caught:
        check_name("x.name", "alhpa", valid)
    text = str(caught.value)
    assert text == "x.name 'alhpa' is unknown; did you mean 'alpha'? Valid are: alpha, beta."


def test_a_name_that_is_close_to_none_gets_no_guess():
    with pytest.raises(UserError) as caught:
        check_name("x.name", "zzz", ["alpha", "beta"])
    assert "did you mean" not in str(caught.value)
    assert "alpha, beta" in str(caught.value)


def test_the_empty_name_is_unknown():
    with pytest.raises(UserError):
        check_name("x.name", "", ["alpha"])


def test_the_nearest_comes_first_and_once():
    assert nearest("beat", ["alpha", "beta", "gamma"]) == "did you mean 'beta'? Valid are: beta, alpha, gamma"


def test_no_names_at_all():
    assert "Valid are" in nearest("x", [])


@pytest.mark.parametrize("code", [0, 75])
def test_the_exit_code_is_that_of_the_script(monkeypatch, code):
    monkeypatch.setattr("sys.argv", ["train.py", "a", "b=c"])
    seen = []
    with pytest.raises(SystemExit) as caught:
        run(lambda arguments: seen.append(arguments) or code)
    assert caught.value.code == code
    assert seen == [["a", "b=c"]]


def test_a_mistake_is_a_sentence_and_code_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py"])

    def main(arguments):
        raise UserError("The sky is 'green' and must be blue.")

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert err == "error: The sky is 'green' and must be blue.\n"
    assert out == ""


def code_of(monkeypatch, error: BaseException) -> int:
    monkeypatch.setattr("sys.argv", ["train.py"])

    def main(arguments):
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), "runs/a cannot be used: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("something else"), "something else"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.png"), "(ulimit -n), then run the same command again."),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE), "a.png"), "allow the machine more open files, then"),
        (RuntimeError("unable to open file <a> in read-only mode: Too many open files (24)"), "(ulimit -n), then"),
        (
            OSError("Caught OSError in a worker.\nOSError: [Errno 24] Too many open files: 'a'"),
            "open files: 'a')",
        ),
        (RuntimeError("received 0 items of ancdata"), "(ulimit -n), then"),
    ],
    ids=[
        "with-a-file",
        "without",
        "without-a-number",
        "handles",
        "handles-of-the-machine",
        "handles-in-a-library",
        "handles-in-a-loader",
        "handles-for-a-tensor",
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence_too(monkeypatch, capsys, error, said):
    assert code_of(monkeypatch, error) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert said in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "Not enough memory (MemoryError): lower train.batch_size"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
            "Not enough memory (Tried to allocate 2 GiB): lower",
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "Not enough memory ("),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "A process that loads data"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "A process that loads data"),
        (EOFError(), "A process that loads data"),
        (RuntimeError("shapes do not fit\nmore"), "RuntimeError: shapes do not fit. "),
    ],
    ids=str,
)
def test_an_error_inside_pytorch_is_a_sentence_that_says_how_to_see_more(monkeypatch, capsys, error, said):
    assert code_of(monkeypatch, error) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: {said}")
    assert text.endswith("FLIPSIDE_TRACE=1 before the command shows where.\n")
    assert text.count("\n") == 1


@pytest.mark.parametrize("error", [UserError("No."), MemoryError(), OSError("x"), RuntimeError("x")], ids=repr)
def test_every_error_shows_its_trace_where_that_is_asked_for(monkeypatch, error):
    monkeypatch.setenv("FLIPSIDE_TRACE", "1")
    monkeypatch.setattr("sys.argv", ["train.py"])

    def main(arguments):
        raise error

    with pytest.raises(type(error)):
        run(main)


def test_an_interrupt_is_no_stack_trace(monkeypatch, capsys):
    assert code_of(monkeypatch, KeyboardInterrupt()) == 130  # 128 + SIGINT, as from a shell
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_gone_is_no_stack_trace():
    """As with `python train.py --print-config | head -1`, in a process of its own: its stdout is used up."""
    script = "from utils import errors\nerrors.run(lambda words: [print('x' * 100) for _ in range(10**5)] and 0)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


def test_a_warning_is_no_result(capsys):
    warn("The sky is green.")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "warning: The sky is green.\n")


def test_a_mistake_of_ours_keeps_its_stack_trace(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(ZeroDivisionError):
        run(lambda arguments: 1 // 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(2**62, 2),
        lambda: torch.empty(2**66),
        lambda: torch.empty(2**50),
        lambda: [0] * 2**60,
        lambda: [0] * 2**70,
        lambda: b"0" * 2**62,
    ],
)
def test_what_fits_into_no_memory_is_a_sentence(monkeypatch, capsys, make):
    """As PyTorch and Python say it of sizes with 64 bits and with more."""
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(SystemExit) as caught:
        run(lambda arguments: make() and 0)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: Not enough memory (")
