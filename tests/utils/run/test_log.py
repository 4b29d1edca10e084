"""What a run tells: what a resumed run keeps of it, and numbers that are read without waiting for the device."""

import json
import math
import time
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from utils.run.folder import RunFolder
from utils.run.log import Log, Meter, gradient_norm, records, say
from utils.training.processes import ProcessGroup


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
    log.metric(2, {"metric": "Fréchet distance", "value": 3.5, "seed": 0})
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


def test_a_resumed_run_drops_what_it_will_do_anew(folder):
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


# --- Curves


def test_curves_hold_the_numbers(folder):
    log = Log(folder, 0)
    log.record("train", 1, {"loss": 0.5, "note": "text"})
    log.metric(2, {"metric": "high quality", "value": 3.5})
    log.close()
    assert curve(folder, "train/loss") == [(1, 0.5)]
    assert curve(folder, "metric/high_quality") == [(2, 3.5)]


def test_a_metric_without_a_value_has_no_point(folder):
    log = Log(folder, 0)
    log.metric(2, {"metric": "reverse KL", "value": None})
    log.metric(4, {"metric": "reverse KL", "value": 0.5})
    log.close()
    assert curve(folder, "metric/reverse_KL") == [(4, 0.5)]
    assert [record["value"] for record in records(folder)] == [None, 0.5]


@pytest.mark.parametrize("begin", [0, 3])
def test_curves_of_a_resumed_run_have_each_step_once(folder, begin):
    """Also of one that was killed before its first checkpoint and begins anew."""
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


# --- The meter


def alone() -> Meter:
    return Meter(ProcessGroup(SimpleNamespace(num_processes=1, process_index=0)))


class NoWaiting(TorchDispatchMode):
    """Refuses whatever makes the host wait for the device: ``item()``, ``float()``, ``bool()``, copies to elsewhere."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "nonzero", "equal"), name
        assert not (name == "_to_copy" and (options or {}).get("device") is not None), name
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("wait", [lambda x: x.item(), float, bool], ids=["item", "float", "bool"])
def test_the_watchman_watches(wait):
    with pytest.raises(AssertionError), NoWaiting():
        wait(torch.tensor(1.0))


def reports(n: int) -> list[dict[str, torch.Tensor]]:
    """Losses of every turn, the generator's of every other, scores of a batch; binary fractions, so sums are exact."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for i in range(n):
        whole = torch.randint(-64, 64, (6,), generator=draw) / 8
        made.append(
            {"critic_loss": whole[0], "real_score": whole[1:5]} | ({"generator_loss": whole[5]} if i % 2 else {})
        )
    return made


def naive(seen: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    names = {name for report in seen for name in report}
    values = {name: [report[name].mean().item() for report in seen if name in report] for name in names}
    return {name: sum(value) / len(value) for name, value in values.items()}


def test_means_are_those_of_a_plain_loop_and_nothing_waits():
    meter, seen = alone(), reports(7)
    with NoWaiting():
        for step, report in enumerate(seen):
            meter.add(step, report)
    means = meter.read(images=0)
    means.pop("images_per_second")
    assert means == naive(seen)


def test_a_meter_starts_anew_after_reading():
    meter, seen = alone(), reports(9)
    for step, report in enumerate(seen[:4]):
        meter.add(step, report)
    meter.read(images=0)
    for step, report in enumerate(seen[4:]):
        meter.add(step, report)
    means = meter.read(images=0)
    means.pop("images_per_second")
    assert means == naive(seen[4:])


def test_reports_are_not_changed():
    meter, seen = alone(), reports(3)
    before = [{name: value.clone() for name, value in report.items()} for report in seen]
    for step, report in enumerate(seen):
        meter.add(step, report)
    for report, want in zip(seen, before, strict=True):
        assert all(torch.equal(report[name], want[name]) for name in want)


def test_the_last_scores_are_kept_for_a_histogram():
    meter, seen = alone(), reports(3)
    for step, report in enumerate(seen):
        meter.add(step, report)
    assert torch.equal(meter.scores["real_score"], seen[-1]["real_score"])


def test_gradient_norms_without_waiting():
    """√(3² + 4² + 12²) = 13, exactly; the parameter without a gradient does not count."""
    module = nn.ParameterDict({name: nn.Parameter(torch.zeros(1)) for name in "abcd"})
    for name, value in zip("abc", (3.0, 4.0, 12.0), strict=True):
        module[name].grad = torch.tensor([value])
    with NoWaiting():
        norm = gradient_norm(module)
    assert norm == 13.0


def test_a_mean_of_integers_and_of_half_precision():
    meter = alone()
    for value in (1, 2):
        meter.add(0, {"count": torch.tensor(value), "half": torch.tensor(float(value)).bfloat16()})
    means = meter.read(images=0)
    assert (means["count"], means["half"]) == (1.5, 1.5)


def test_the_speed_is_of_the_time_since_the_last_reading(monkeypatch):
    now = iter([10.0, 14.0, 14.0, 16.0, 16.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = alone()
    for images, want in ((100, 25.0), (100, 50.0)):
        meter.add(0, {"x": torch.tensor(1.0)})
        assert meter.read(images)["images_per_second"] == want


def test_a_pause_does_not_count(monkeypatch):
    """From 10 to 20, of which 12 to 18 is a pause: 4 seconds of training."""
    now = iter([10.0, 12.0, 18.0, 20.0, 20.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = alone()
    meter.add(0, {"x": torch.tensor(1.0)})
    with meter.paused():
        pass
    assert meter.read(images=100)["images_per_second"] == 25.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "score"])
def test_what_is_not_finite_is_known_with_its_first_step_without_waiting(value, where):
    """Of a loss, and of one score among others; a kind of turn that comes only now and then is watched, too."""
    meter = alone()
    with NoWaiting():
        for step in range(10, 20):
            bad = value if step in (14, 17) else 1.0
            report = {"loss": torch.tensor(bad if where == "loss" else 1.0), "fine": torch.tensor(1.0)}
            meter.add(step, {**report, "score": torch.tensor([1.0, bad if where == "score" else 2.0])})
            if step == 12:
                meter.add(step, {"loss": torch.tensor(1.0)})
    assert meter.first_not_finite() == {where: 14}
    assert not math.isfinite(meter.read(images=1)[where])
    assert meter.first_not_finite() == {}


def test_a_quantity_of_two_kinds_of_turns_has_the_earlier_step():
    meter = alone()
    meter.add(3, {"loss": torch.tensor(1.0), "other": torch.tensor(1.0)})
    meter.add(4, {"loss": torch.tensor(math.nan), "other": torch.tensor(1.0)})
    meter.add(2, {"loss": torch.tensor(math.nan)})
    assert meter.first_not_finite() == {"loss": 2}


def test_nothing_is_read_of_nothing():
    assert alone().first_not_finite() == {}
    assert alone().read(images=0).keys() == {"images_per_second"}
