"""The log of a run: what is written, and what a resumed run keeps of it."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from tests.utils.run.scripted import scripted
from utils.errors import UserError
from utils.run.folder import RunFolder
from utils.run.log import Log, records, say
from utils.training import checkpoint


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def curve(folder: RunFolder, name: str) -> list[tuple[int, float]]:
    """The points of a curve as TensorBoard shows them."""
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    return [(point.step, point.value) for point in events.Scalars(name)]


def log_steps(folder: RunFolder, begin: int, steps: range, offset: float = 0.0) -> None:
    """A run that resumes at ``begin`` and logs ``steps``."""
    log = Log(folder, begin)
    for step in steps:
        log.record("train", step, {"loss": step + offset})
    log.close()


# --- Records


def test_records_are_lines_of_json(folder):
    log = Log(folder, 0)
    log.record("train", 1, {"loss": 0.5, "é": "text"})
    log.metrics(2, [{"metric": "Fréchet distance", "value": 3.5, "seed": 0}])
    log.close()
    assert records(folder) == [
        {"kind": "train", "step": 1, "loss": 0.5, "é": "text"},
        {"kind": "metric", "step": 2, "metric": "Fréchet distance", "value": 3.5, "seed": 0},
    ]


def test_a_record_is_on_the_disk_at_once(folder):
    """A kill loses nothing that was said before."""
    log = Log(folder, 0)
    log.record("train", 1, {"loss": 0.5})
    assert len(records(folder)) == 1
    log.close()


def test_a_resumed_run_drops_what_it_will_do_again(folder):
    log_steps(folder, 0, range(1, 11))
    log_steps(folder, 6, range(7, 9), offset=0.5)
    assert [(r["step"], r["loss"]) for r in records(folder)] == [
        *((float(step), float(step)) for step in range(1, 7)),
        (7, 7.5),
        (8, 8.5),
    ]


def test_a_run_that_starts_over_drops_everything(folder):
    log_steps(folder, 0, range(1, 4))
    Log(folder, 0).close()
    assert records(folder) == []


def test_nothing_is_dropped_when_nothing_was_after(folder):
    log_steps(folder, 0, range(1, 4))
    before = folder.metrics.read_bytes()
    Log(folder, 3).close()
    assert folder.metrics.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_short_is_dropped(folder, cut):
    log_steps(folder, 0, range(1, 4))
    text = folder.metrics.read_text()
    folder.metrics.write_text(text[:-cut])
    log_steps(folder, 3, range(4, 5))
    assert [r["step"] for r in records(folder)] == ([1, 2, 3, 4] if cut == 1 else [1, 2, 4])


def test_a_folder_without_records_has_none(folder):
    assert records(folder) == []


def test_every_line_is_json_after_a_resumption(folder):
    """Whatever lay there: other programs read the file line by line."""
    log_steps(folder, 0, range(1, 3))
    with open(folder.metrics, "a") as file:
        file.write('{"kind": "train", "st')
    log_steps(folder, 2, range(3, 4))
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("line", ["", "5", "null", "[1]", '"text"', "{}", '{"step": null}', '{"step": "x"}', "\0\0\0"])
def test_a_line_that_is_no_record_is_dropped(folder, line):
    log_steps(folder, 0, range(1, 3))
    with open(folder.metrics, "a") as file:
        file.write(line + "\n")
    log_steps(folder, 2, range(3, 4))
    assert [r["step"] for r in records(folder)] == [1, 2, 3]


def test_other_files_of_the_folder_stay(folder):
    folder.log.write_text("before\n")
    log_steps(folder, 0, range(1, 3))
    assert folder.log.read_text() == "before\n"
    assert {path.name for path in folder.path.iterdir()} == {"log.txt", "metrics.jsonl", "tensorboard"}


def test_records_are_on_the_disk_itself_before_the_checkpoint_that_relies_on_them(tmp_path, monkeypatch):
    """A power cut keeps no order among writes but that of fsync."""
    run, synced = scripted(tmp_path, [1.0]), []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino) or fsync(handle))
    seen = {}

    def noted(path, target):
        seen.setdefault(target.parent.name, list(synced))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    with run.begun(0) as (recorder, saver, evaluator):
        recorder.log.record("train", 1, {"loss": 0.5})
        evaluator.evaluate(1)
        synced.clear()
        saver.save(1)
    assert run.folder.metrics.stat().st_ino in seen["checkpoints"]
    assert run.folder.path.stat().st_ino in seen["checkpoints"]


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_records_that_were_lost_are_told(tmp_path, left):
    """Those of the checkpoint's step count, those of later ones do not."""
    run = scripted(tmp_path, [])
    with run.begun(0) as (recorder, saver, _):
        for step in (1, 2, 3):
            recorder.log.record("train", step, {"loss": 0.5})
        saver.save(3)
        recorder.log.record("train", 4, {"loss": 0.5})
    lines = run.folder.metrics.read_text().splitlines(keepends=True)
    run.folder.metrics.write_text("".join(lines[3 - left :]))
    saved, told = checkpoint.newest(run.folder.checkpoints, print), []
    train.check_records(saved, run.folder, told.append)
    assert len(told) == (left < 3)
    if told:
        assert f"holds {left} of 3 lines of the training up to step 3" in told[0]


# --- Curves


def test_curves_hold_the_numbers(folder):
    log = Log(folder, 0)
    log.record("train", 1, {"loss": 0.5, "note": "text"})
    log.metrics(2, [{"metric": "high quality", "value": 3.5}])
    log.close()
    assert curve(folder, "train/loss") == [(1, 0.5)]
    assert curve(folder, "metric/high_quality") == [(2, 3.5)]


def test_a_metric_without_a_value_has_no_point(folder):
    log = Log(folder, 0)
    log.metrics(2, [{"metric": "reverse KL", "value": None}])
    log.metrics(4, [{"metric": "reverse KL", "value": 0.5}])
    log.close()
    assert curve(folder, "metric/reverse_KL") == [(4, 0.5)]
    assert [record["value"] for record in records(folder)] == [None, 0.5]


@pytest.mark.parametrize("begin", [0, 3])
def test_curves_of_a_resumed_run_have_each_step_once(folder, begin):
    """Also of one that was killed before its first checkpoint and begins again."""
    log_steps(folder, 0, range(1, 7))
    time.sleep(1.1)  # event files are named by the second, and read in the order of their names
    log_steps(folder, begin, range(begin + 1, 9), offset=0.5)
    points = curve(folder, "train/loss")
    assert [step for step, _ in points] == list(range(1, 9))
    assert [value for step, value in points if step > begin] == [step + 0.5 for step in range(begin + 1, 9)]


def test_pictures_histograms_and_the_config(folder):
    log = Log(folder, 0)
    log.scores(1, {"real_score": torch.randn(8), "attribute_score": torch.randn(8)})
    log.picture(1, "samples", torch.zeros(3, 4, 4, dtype=torch.uint8))
    log.config("seed: 0\nrun:\n  name: a\n")
    log.close()
    tags = EventAccumulator(str(folder.tensorboard)).Reload().Tags()
    assert set(tags["histograms"]) == {"scores/real", "scores/attribute"}
    assert tags["images"] == ["samples"]
    assert len(tags["tensors"]) == 1


def test_an_error_on_its_way_is_not_hidden_by_one_of_closing(folder, monkeypatch):
    def fail():
        raise OSError("no room")

    with pytest.raises(ValueError, match="first"), Log(folder, 0) as log:
        monkeypatch.setattr(log.writer, "close", fail)
        raise ValueError("first")
    with pytest.raises(UserError, match="no room"), Log(folder, 0) as log:
        monkeypatch.setattr(log.writer, "close", fail)


# --- Lines for people


def test_lines_go_to_the_terminal_and_with_the_time_to_the_file(folder, capsys):
    say(folder, "one")
    say(folder, "two", quiet=True)
    assert capsys.readouterr().out == "one\n"
    lines = folder.log.read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["one", "two"]
    for line in lines:
        time.strptime(line.split("  ")[0], "%Y-%m-%d %H:%M:%S")


def test_a_log_says_the_same_way(folder, capsys):
    log = Log(folder, 0)
    log.say("one")
    log.close()
    assert capsys.readouterr().out == "one\n"
    assert folder.log.read_text().endswith("  one\n")


def test_lines_that_a_disk_has_damaged_are_left_out(folder):
    good = b'{"kind": "train", "step": 1, "loss": 0.5}\n'
    bad = [
        b"\xff\xfe\n",
        good.replace(b"loss", b"lo\x80s"),
        b'{"kind": "train", "step": "1"}\n',
        b"\0\0\0\n",
        b"[" * 50,
    ]
    for line in bad:
        folder.metrics.write_bytes(good + line + b"\n" + good.replace(b"1", b"2"))
        assert [record["step"] for record in records(folder)] == [1, 2]
        Log(folder, 1).close()
        assert [record["step"] for record in records(folder)] == [1]
