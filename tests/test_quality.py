"""The benchmark of sample quality: its table, what it continues from, and that its runs are train.py's."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks import quality
from tests.runs import ROOT, run, stand_in
from utils.config import loading as config
from utils.data import datasets
from utils.data.samples import DataSet, Resident

SHORT = ["--data=ring", "--methods=rpgan", "--seeds=2", "--steps=20"]


def words(folder: Path, *more: str) -> list[str]:
    """The command line of a tiny benchmark with its results in ``folder``."""
    return [*SHORT, f"--results={folder}/lines.jsonl", *more]


def benchmark(folder: Path) -> str:
    """What the benchmark prints. In a process of its own, because it forks."""
    command = [sys.executable, str(ROOT / "benchmarks/quality.py"), *words(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The results of all rules on the ring, two seeds each."""
    folder = tmp_path_factory.mktemp("quality")
    benchmark(folder)
    return folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()]


def test_every_rule_has_a_row_over_both_seeds(finished, capsys):
    assert quality.main(words(finished, "--table")) == 0
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines() if "RpGAN" in row]
    assert [row[1] for row in rows] == ["alternating", "simultaneous", "single_pass"]
    assert [row[5] for row in rows] == ["2", "2", "2"]


def test_it_goes_on_where_it_was(finished, tmp_path):
    """Of six results four are left, the last one torn: the other four runs are done again, with the same outcome."""
    whole = (finished / "lines.jsonl").read_text().splitlines()
    (tmp_path / "lines.jsonl").write_text("\n".join([*whole[:2], whole[2][:30]]))
    table = benchmark(tmp_path)
    kept = [line for line in (tmp_path / "lines.jsonl").read_text().splitlines() if line.endswith("}")]
    assert kept[:2] == whole[:2]
    assert len(kept) == 6

    assert sorted(map(outcome, kept)) == sorted(map(outcome, whole))
    assert table.count("| RpGAN") == 3


def outcome(line: str) -> str:
    """All of a result but the time that it took."""
    return str({key: value for key, value in json.loads(line).items() if key != "cpu_seconds"})


def test_other_settings_are_other_runs(finished, capsys):
    assert quality.main(words(finished, "--table", "--set", "optimizer.critic_lr=0.5")) == 0
    assert "RpGAN" not in capsys.readouterr().out


def test_a_run_is_that_of_the_training_script(finished, tmp_path):
    cfg = config.load(ROOT / "configs/ring.yaml", [])  # its sizes in the place of the tests' tiny ones
    own = [f"model.width={cfg.model.width}", f"train.batch_size={cfg.train.batch_size}", "evaluate.samples=2500"]
    own += ["train.steps=20", "run.threads=1"]
    assert run(tmp_path, *own, recipe="configs/ring.yaml") == 0
    records = [json.loads(line) for line in (tmp_path / "ring/metrics.jsonl").read_text().splitlines()]
    trained = {record["metric"]: record["value"] for record in records if record["kind"] == "metric"}
    measured = next(line for line in lines(finished) if (line["rule"], line["seed"]) == ("single_pass", 0))
    assert trained == {name: measured[name] for name in trained}


def test_images_are_followed_over_steps_and_seconds(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(datasets.DATASETS, "mnist", stand_in(datasets.DATASETS, "mnist", random_images))
    monkeypatch.setattr(quality, "FEATURES", tmp_path)
    monkeypatch.setattr(quality, "IMAGES", 80)
    picture = tmp_path / "rules.png"
    command = ["--data=mnist", "--seeds=1", "--steps=6", "--turns=1", f"--results={tmp_path}/lines.jsonl"]
    command += [f"--plot={picture}", "--set", "model.generator_width=2", "model.critic_width=2", "train.batch_size=8"]
    monkeypatch.setattr(quality, "perform", perform_here)
    assert quality.main(command) == 0
    table = capsys.readouterr().out
    assert "| rule | step 1 | step 2 | step 3 | step 4 | step 5 | step 6 | ms a step | seconds in all |" in table
    assert [table.count(f"| {rule} |") for rule in quality.RULES] == [1, 1, 1]
    assert Image.open(picture).size == (720, 270)
    assert len(lines(tmp_path)) == 4  # three runs, and the seconds per step
    assert quality.main([*command, "--table"]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == table.splitlines()[3:]


def perform_here(runs: list, options: Namespace) -> None:
    """In this process, whose data sets are patched."""
    for one in runs:
        quality.append(options.results, quality.do(one))


def random_images(data: Any, seed: int) -> DataSet:
    """Noise in the place of MNIST, with a held-out split."""
    x = torch.randint(256, (160, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    splits = [Resident(part, torch.arange(len(part)) % 10) for part in x.split(80)]
    return DataSet("mnist", (1, 32, 32), 10, *splits)
