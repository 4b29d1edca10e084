"""Runs on a folder of images: what they say of it, how they show images that are no squares, and a look beforehand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
from tests.runs import ROOT, run
from utils import pictures
from utils.config import loading
from utils.run import rehearsal

SIZE = (24, 16)  # width and height


@pytest.fixture
def photos(tmp_path):
    """Forty images that are half as wide again as they are high."""
    draw = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(40):
        pixels = draw.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{i:02d}.png")
    return ["data.name=folder", f"data.root={tmp_path}/photos", "train.steps=2", "checkpoint.every=2"]


def shape_in_grid(path, columns: int, rows: int) -> tuple[int, int]:
    """Height and width of the images in a grid with frames of two pixels."""
    _, H, W = pictures.load(path).shape
    return (H - 2) // rows - 2, (W - 2) // columns - 2


def test_stretched_images_are_shown_in_their_own_shape(tmp_path, photos, capsys):
    assert run(tmp_path, *photos, "data.fit=stretch", "data.resolution=64", "sample.count=4") == 0
    folder = tmp_path / "digits-photos"
    assert shape_in_grid(folder / "samples/step-00000002.png", 2, 2) == (64, 96)
    log = (folder / "log.txt").read_text()
    assert "40 images of 24x16 pixels, in colour (Pillow's modes: 40 RGB)" in log
    assert "Held out: 4 images" in log
    capsys.readouterr()
    assert sample.main([str(folder), "--count", "4", "--columns", "2"]) == 0
    assert shape_in_grid(capsys.readouterr().out.strip(), 2, 2) == (64, 96)


def test_rectangles_of_two_classes_are_trained_on_and_measured_as_they_are(tmp_path, photos):
    for i in range(40):
        path = tmp_path / f"photos/{i:02d}.png"
        path.parent.joinpath(str(i % 2)).mkdir(exist_ok=True)
        path.rename(path.parent / str(i % 2) / path.name)
    assert run(tmp_path, *photos, "data.resolution=[16,24]", "sample.count=4") == 0
    image = pictures.load(tmp_path / "digits-photos/samples/step-00000002.png")
    assert image.shape[1:] == (2 + 2 * (3 * 16 + 2), 2 + 2 * (3 * 24 + 2))  # small images are enlarged
    records = (tmp_path / "digits-photos/metrics.jsonl").read_text().splitlines()
    measured = [record for record in map(json.loads, records) if record["kind"] == "metric"]
    assert "Fréchet distance" in {record["metric"] for record in measured}
    assert {record["reference_samples"] for record in measured} == {4}, "the held-out images"


def test_a_look_at_the_data_trains_nothing(tmp_path, photos, capsys):
    words = [*photos, "data.fit=crop", "model.generator_width=4", "model.critic_width=4", "train.batch_size=4"]
    words += [f"run.dir={tmp_path}", "run.device=cpu", "--check-data"]
    assert train.main([str(ROOT / "configs/digits.yaml"), *words]) == 0
    said = capsys.readouterr().out
    for part in (
        "40 images of 24x16 pixels",
        "Held out: 4 images",
        "s a step of 4 samples",
        "samples/s, ",
        " MiB on cpu",
    ):
        assert part in said
    assert [path.name for path in (tmp_path / "digits-photos").iterdir()] == ["data.png"]
    assert pictures.load(tmp_path / "digits-photos/data.png").shape[0] == 3


def test_steps_are_timed_over_a_whole_cycle_of_lazy_penalties(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: next(clock))
    done = []
    cfg = loading.load(ROOT / "configs/digits.yaml", ["penalty.every={r1: 8}"])
    seconds = rehearsal.seconds_a_step(cfg, done.append, torch.device("cpu"))
    assert done == list(range(9))
    assert seconds == 9 / 8  # the clock here moves by one with every look, at the begin, after each step and at the end
    done.clear()
    monkeypatch.setattr(rehearsal, "PATIENCE", 2)
    rehearsal.seconds_a_step(cfg, done.append, torch.device("cpu"))
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.001, "about 8 seconds"), (0.1, "about 13.3 minutes"), (3.0, "about 6.7 hours"), (60.0, "about 5.6 days")],
)
def test_the_estimate_is_in_a_fitting_unit(seconds, words):
    cfg = loading.load(ROOT / "configs/digits.yaml", [])  # 8,000 steps
    assert words in rehearsal.estimate(cfg, seconds, 1024.0, torch.device("cpu"))
