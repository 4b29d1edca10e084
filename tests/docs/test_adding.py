"""The diffs of docs/adding.md apply to these sources, and what they add trains."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("loss", "penalty", "optimiser", "metric", "data_set", "network", "game")
DIFFS = dict(
    zip(
        ("loss", "penalty", "optimiser", "metric", "data_set", "network", "game"),
        re.findall(r"```diff\n(.*?)```", (ROOT / "docs/adding.md").read_text(), re.DOTALL),
        strict=True,
    )
)
# Run in the changed copy: trains what was added for a few steps, and holds the loss and the penalty to two separate
# backward passes under every rule.
SCRIPT = """
import json, sys
import torch
import train
from adversarial.passes import Strengths
from tests.adversarial.exactness import check
from tests.adversarial.toy_games import PLANS, SeededDraw, image_batch, image_game, penalties
from utils.evaluation import classifier

torch.set_num_threads(1)
classifier.STEPS = 5
SMALL = ["model.latent_dim=4", "train.batch_size=8", "train.steps=2", "sample.count=4", "evaluate.samples=16",
         "run.device=cpu", "run.dir=runs"]
DCGAN = [*SMALL, "model.generator_width=4", "model.critic_width=4"]
RUNS = {
    "loss": [*DCGAN, "game.objective=squared_hinge"],
    "penalty": [*DCGAN, "penalty.drift=0.1", "penalty.every.drift=2"],
    "optimiser": [*DCGAN, "optimizer.name=rmsprop"],
    "metric": DCGAN,
    "data_set": [*DCGAN, "data.name=negative_digits"],
    "network": [*SMALL, "model.name=tiny", "model.width=8"],
    "game": [*DCGAN, "game.name=restoration"],
}
for name, words in RUNS.items():
    assert train.main(["configs/digits.yaml", *words, f"run.name={name}"]) == 0
    more = ["train.steps=3"]
    assert train.main(["configs/digits.yaml", *words, f"run.name={name}", *more]) == 0
assert train.main(["configs/digit_patches.yaml", "data.name=images", "data.source=digits",
                   "data.target=negative_digits", "data.resolution=16", "data.fit=pad", "model.channels=4",
                   "model.width=8", "model.critic_width=8", *SMALL[1:3], *SMALL[4:], "run.name=pair"]) == 0
for plan in PLANS:
    check(plan, image_game(), "squared_hinge", image_batch(), SeededDraw(4), Strengths(penalties("drift")))
print("done")
"""


def copied(folder: Path) -> Path:
    """The sources that the diffs touch or need."""
    for name in ("adversarial", "models", "utils", "configs", "tests/adversarial"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/__init__.py", folder / "tests/__init__.py")
    shutil.copy(ROOT / "train.py", folder / "train.py")
    return folder


def apply(folder: Path, *names: str) -> None:
    for name in names:
        command = ["git", "apply", "--unidiff-zero", "-"]
        subprocess.run(command, cwd=folder, input=DIFFS[name], text=True, check=True, capture_output=True)


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """A copy with all the diffs in it, in which everything has been trained."""
    folder = copied(tmp_path_factory.mktemp("adding"))
    apply(folder, *NAMES)
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True)
    assert done.stdout.endswith("done\n"), done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_diff_applies_alone_and_the_page_says_where(tmp_path, name):
    apply(copied(tmp_path), name)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_added_trains_and_resumes(changed, name):
    log = (changed / "runs" / name / "log.txt").read_text()
    assert log.count("Finished at step") == 2
    assert "Resumed from" in log


def metrics(folder: Path, run: str) -> list[dict]:
    lines = (folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "metric"]


def test_the_new_metrics_are_recorded(changed):
    assert "class balance" in {record["metric"] for record in metrics(changed, "metric")}
    assert "restoration error" in {record["metric"] for record in metrics(changed, "game")}


def test_the_new_set_is_a_domain_too(changed):
    assert "Finished at step" in (changed / "runs/pair/log.txt").read_text()


def test_the_table_names_every_diff():
    """A line of the table, a heading and a diff each."""
    page = (ROOT / "docs/adding.md").read_text()
    links = re.findall(r"^\| \[.*?\]\(#([\w-]+)\)", page, re.MULTILINE)
    headings = [title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", page, re.MULTILINE)]
    assert sorted(links) == sorted(headings)
    assert len(links) == len(DIFFS)
