"""Statistics of the steps: read at the log interval, and summed until then without waiting for the device."""

import math
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.no_waiting import NoWaiting
from utils.run.meter import OF_MACHINE, TOGETHER, Meter, gradient_norms
from utils.training.processes import ProcessGroup

ALONE = ProcessGroup(SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu")))


def alone() -> Meter:
    return Meter(ALONE)


def reports(n: int) -> list[dict[str, torch.Tensor]]:
    """Losses of every turn, the generator's of every other, scores of a batch and whether they are right; binary
    fractions, so sums are exact.
    """
    draw = torch.Generator().manual_seed(0)
    made = []
    for i in range(n):
        whole = torch.randint(-64, 64, (6,), generator=draw) / 8
        of_critic = {"critic_loss": whole[0], "real_score": whole[1:5], "right": whole[1:5] > 0}
        made.append(of_critic | ({"generator_loss": whole[5]} if i % 2 else {}))
    return made


def naive(seen: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    names = {name for report in seen for name in report}
    values = {name: [report[name].float().mean().item() for report in seen if name in report] for name in names}
    return {name: sum(value) / len(value) for name, value in values.items()}


def without_times(read: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in read.items() if name not in OF_MACHINE}


@pytest.mark.parametrize("n", [7, 4 * TOGETHER + 1])
def test_means_are_those_of_a_plain_loop_and_nothing_waits(n):
    """Of fewer turns than are averaged together, and of more of either kind, with some left over."""
    meter, seen = alone(), reports(n)
    with NoWaiting():
        for step, report in enumerate(seen):
            meter.add(step, report)
    means = without_times(meter.read(images=0))
    assert means == naive(seen)


def test_a_meter_starts_again_after_reading():
    meter, seen = alone(), reports(9)
    for step, report in enumerate(seen[:4]):
        meter.add(step, report)
    meter.read(images=0)
    for step, report in enumerate(seen[4:]):
        meter.add(step, report)
    means = without_times(meter.read(images=0))
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
    assert meter.scores.keys() == {"real_score"}
    assert torch.equal(meter.scores["real_score"], seen[-1]["real_score"])


def test_gradient_norms_without_waiting():
    """√(3² + 4² + 12²) = 13 and then 5, exactly; parameters without a gradient do not count."""
    module = nn.ParameterDict({name: nn.Parameter(torch.zeros(1)) for name in "abcd"})
    optimizer, meter = torch.optim.SGD(module.values(), 0.1), alone()
    with NoWaiting():
        for step, gradients in enumerate(((3.0, 4.0, 12.0), (3.0, 4.0))):
            optimizer.zero_grad()
            for name, value in zip("abc", gradients, strict=False):
                module[name].grad = torch.tensor([value])
            meter.add(step, {}, {"norm": gradient_norms(optimizer)})
    assert without_times(meter.read(images=0)) == {"norm": (13 + 5) / 2}


@pytest.mark.parametrize("step", [0, TOGETHER, 2 * TOGETHER])
def test_a_gradient_that_is_not_finite_is_known_with_its_step(step):
    meter = alone()
    for i in range(2 * TOGETHER + 1):
        meter.add(i, {}, {"norm": [torch.tensor(1.0), torch.tensor(math.nan if i == step else 1.0)]})
    assert meter.first_not_finite() == {"norm": step}


def test_a_mean_of_integers_and_of_half_precision():
    meter = alone()
    for value in (1, 2):
        meter.add(0, {"count": torch.tensor(value), "half": torch.tensor(float(value)).bfloat16()})
    means = meter.read(images=0)
    assert (means["count"], means["half"]) == (1.5, 1.5)


def test_the_speed_is_of_the_time_since_the_last_reading(monkeypatch):
    now = iter([10.0, 14.0, 16.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = alone()
    for images, want in ((100, 25.0), (100, 50.0)):
        meter.add(0, {"x": torch.tensor(1.0)})
        assert meter.read(images)["images_per_second"] == want


def test_a_pause_does_not_count(monkeypatch):
    """From 10 to 20, of which 12 to 18 is a pause: 4 seconds of training. The processor counts twice as fast here."""
    for name, times in (("perf_counter", [10.0, 12.0, 18.0, 20.0]), ("process_time", [20.0, 24.0, 36.0, 40.0])):
        monkeypatch.setattr(time, name, iter(times).__next__)
    meter = alone()
    meter.add(0, {"x": torch.tensor(1.0)})
    with meter.paused():
        pass
    read = meter.read(images=100)
    assert read.pop("peak_memory_mib") > 100  # PyTorch alone takes more
    shares = {"outside_networks": 1.0, "waiting_for_data": 0.0}  # no pass was made, and no batch
    assert read == {"images_per_second": 25.0, "seconds": 4.0, "cpu_seconds": 8.0, "x": 1.0, **shares}


def test_seconds_add_up_over_readings_and_go_on_from_before(monkeypatch):
    for name, times in (("perf_counter", [10.0, 14.0, 15.0]), ("process_time", [0.0, 1.0, 3.0])):
        monkeypatch.setattr(time, name, iter(times).__next__)
    meter = Meter(ALONE, 100.0, 50.0)
    read = [meter.read(images=1) for _ in range(2)]
    assert [(line["seconds"], line["cpu_seconds"]) for line in read] == [(104.0, 51.0), (105.0, 53.0)]


def test_the_memory_is_that_of_the_process_that_takes_most(monkeypatch):
    meter = alone()
    monkeypatch.setattr(meter.group, "least", lambda values: [min(value, -(2**20)) for value in values])
    assert meter.read(images=1)["peak_memory_mib"] == 2**20


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
    assert alone().read(images=0).keys() == set(OF_MACHINE)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 2.0])
def test_a_clock_that_stands_still_or_goes_back_gives_no_speed(monkeypatch, seconds):
    now = iter([10.0, 10.0 + seconds])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    assert alone().read(images=8)["images_per_second"] == (4.0 if seconds > 0 else 0.0)
