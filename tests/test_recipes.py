"""Every YAML in configs/ trains for a few steps under each rule that its critic accepts, and resumes."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torchvision.models.resnet import BasicBlock, ResNet

import train
from adversarial.rules import RULES
from benchmarks.time_to_quality import QUESTIONS, WAYS, by_way, compared, costs, first, qualities_after
from tests.runs import ROOT, SMALL, TINY, fingerprint, loaded, stand_in
from tests.untrained import sizes_alone
from utils.config.identity import differences, flat, identity
from utils.config.sections import Config, named_sections
from utils.data import datasets, domains
from utils.data.pairs import Domain, Pair
from utils.data.samples import DataSet, Resident
from utils.errors import UserError
from utils.evaluation.spaces import SPACES, Space
from utils.sweeps.tables import Means
from utils.tasks.registry import task_of
from utils.training.state import Sizes

RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
REFUSED_BY_SINGLE_PASS = ("depend on the whole batch", "the same class but opposite scores")
QUICK = ["train.steps=3", "log.every=2", "sample.every=3", "checkpoint.every=2", "evaluate.every=3"]


@pytest.fixture(autouse=True)
def _quick_measurements_of_recipes(monkeypatch):
    """Recipes are trained here: what measures them would take more time than the training."""

    def read(x):
        means = x.float().mean((2, 3))
        return means, means.softmax(1)

    monkeypatch.setitem(SPACES, "lite0", lambda request: Space("means", "0", None, read, request.device))
    monkeypatch.setattr("utils.evaluation.domain_critics.PROBE_STEPS", 3)
    monkeypatch.setattr(Figure, "tight_layout", lambda figure: None)  # half the time of a picture


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains_and_resumes(tmp_path, monkeypatch, recipe, rule):
    """The run has lost its last checkpoint, and does the last step again to the same bits."""
    for name in ("images", "domain_folders", "vectors", "amazon_reviews"):
        monkeypatch.setitem(domains.DOMAINS, name, stand_in(domains.DOMAINS, name, random_pair))
    for name in ("mnist_5k", "mnist", "fashion_mnist", "stacked_mnist", "cifar10", "folder", "zip"):
        monkeypatch.setitem(datasets.DATASETS, name, stand_in(datasets.DATASETS, name, random_images))
    monkeypatch.setattr("torchvision.models.get_model", lambda name: NarrowResNet(BasicBlock, [1, 1, 1, 1]))
    command = [*words(recipe), f"update.rule={rule}"]
    given = loaded(recipe)
    if getattr(given.game, "method", None) == "adda":
        former = [
            *words(recipe),
            "game.method=source_only",
            "init.run=",
            f"run.dir={tmp_path}",
            "run.name=former",
        ]
        assert train.main(former) == 0
        command.append(f"init.run={tmp_path}/former")
    try:
        assert train.main([*command, f"run.dir={tmp_path}"]) == 0
    except UserError as error:
        why = [reason for reason in REFUSED_BY_SINGLE_PASS if reason in str(error)]
        if rule != "single_pass" or rule == given.update.rule or not why:
            raise
        pytest.skip(why[0])
    whole = fingerprint(tmp_path, recipe.stem)
    shutil.rmtree(tmp_path / recipe.stem / "checkpoints/step-00000003")
    assert train.main([*command, f"run.dir={tmp_path}"]) == 0
    assert "Resumed from" in (tmp_path / recipe.stem / "log.txt").read_text()
    assert fingerprint(tmp_path, recipe.stem) == whole
    assert (tmp_path / recipe.stem / "samples/step-00000003.png").is_file()


class NarrowResNet(ResNet):
    """With a sixteenth of the channels, so that its checkpoints are small."""

    def _make_layer(self, block, planes, *arguments, **options):
        return super()._make_layer(block, planes // 16, *arguments, **options)


CHANNELS = {"digits": 1, "mnist_5k": 1, "mnist": 1, "fashion_mnist": 1}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_has_networks_of_its_own_size(recipe):
    """At full width and resolution, on a device without memory; an update rule may refuse the critic only later."""
    cfg = loaded(recipe)
    task = task_of(cfg)
    images = (CHANNELS.get(cfg.data.name, 3), *[getattr(cfg.data, "resolution", None)] * 2)  # points have none
    shape = (2,) if cfg.model.name in ("mlp", "dense") else images
    with sizes_alone():
        generator, critic = task.networks(cfg, Sizes(shape, 10, outputs=4))
    assert all(parameter.is_meta for network in (generator, critic) for parameter in network.parameters())


def words(recipe: Path) -> list[str]:
    """The command line of a tiny run."""
    return [str(recipe), *TINY[loaded(recipe).model.name], *SMALL, *QUICK, "run.device=cpu"]


def random_pair(data: Any, seed: int) -> Pair:
    """Noise in the place of files that tests cannot have: images, or vectors where the recipe reads vectors.

    With a held-out split where the set has one, and so no key for the share that is held out.
    """
    draw = torch.Generator().manual_seed(seed)
    label = torch.arange(60) % 3

    def samples() -> Resident:
        if data.name in ("vectors", "amazon_reviews"):
            return Resident(torch.randn(60, 20, generator=draw), label)
        size = (60, 3, data.resolution, data.resolution)
        return Resident(torch.randint(256, size, generator=draw, dtype=torch.uint8), label)

    sides = [Domain(name, samples(), None if hasattr(data, "validation") else samples()) for name in "ab"]
    return Pair(*sides, ("x", "y", "z"))


def random_images(data: Any, seed: int) -> DataSet:
    """Noise in the place of an image set; without a held-out split, so that no classifier is trained to measure it.

    Stacked digits have digits for their channels, whose classifier is.
    """
    shape = (1 if data.name in CHANNELS else 3, data.resolution, data.resolution)
    x = torch.randint(256, (60, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    samples, channel = Resident(x, torch.arange(60) % 10), None
    if data.name == "stacked_mnist":
        digits = Resident(x[:, :1], samples.label)
        channel = DataSet("mnist", (1, *shape[1:]), 10, digits, digits)
    return DataSet(data.name, shape, 1000 if channel else 10, samples, None, channel=channel)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_short_and_says_what_to_expect(recipe):
    """The header is complete, and every key differs from the base or the default."""
    entries = header(recipe)
    assert [word for word, _ in entries if word not in ("First", "Rule")] == [
        "What",
        "Source",
        "Expected",
        "Time",
        "Reproduced",
    ]
    assert all(len(text) >= 3 for _, text in entries)
    assert re.fullmatch(r"[A-Z].{10,70}[^.?!:]", dict(entries)["What"])  # a noun phrase, as --list shows it
    assert status(recipe) in STATUSES
    assert re.fullmatch(TIME, dict(entries)["Time"])

    own = OmegaConf.to_container(OmegaConf.load(recipe))
    base = own.pop("base", None)
    given = flat(loaded(recipe))
    before = flat(loaded(recipe.parent / base) if base else _defaults(own))
    keys = [f"{section}.{key}" for section, values in own.items() for key in values]
    assert [key for key in keys if given[key] == before.get(key) and not key.endswith(".name")] == []
    repeated = [key for key in keys if isinstance(before.get(key), dict) and same_items(own, before, key)]
    assert repeated == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_played_as_its_header_says(recipe):
    """Where several ways of playing were compared, the header names the one that was first, and the config has it."""
    way, _, _ = dict(header(recipe)).get("Rule", "").partition(":")
    assert way == (first(recipe.stem, compared()) if recipe.stem in QUESTIONS else "")
    if way:
        told = {"generator_lookahead": 0} | OmegaConf.to_container(OmegaConf.from_dotlist(WAYS[way]))["update"]
        given = flat(loaded(recipe))
        assert {key: given[f"update.{key}"] for key in told} == told


@pytest.mark.parametrize("name", [recipe.stem for recipe in RECIPES if recipe.stem in QUESTIONS])
def test_the_figures_of_a_header_are_those_of_the_benchmark(name):
    """Rounded: means and standard errors of a way, at the end or when the cheapest way ends, and its CPU seconds."""
    lines = [line for line in compared() if line["question"] == name]
    told = dict(header(ROOT / f"configs/{name}.yaml")).get("Rule", "").replace(",", "")
    figures = re.findall(r"([\d.]+) \+- ([\d.]+)", told)
    seconds = re.findall(r" in (\d+)", told)
    assert bool(lines) == bool(figures) == bool(seconds)
    spent = [] if not lines else costs(name, lines).values()
    known = [means for budget in spent for means in qualities_after(name, lines, budget).values()]
    for metric in QUESTIONS[name].metrics:
        known += [Means([line["values"][metric][-1] for line in own]) for own in by_way(name, lines).values()]
    pairs = [(means.mean, means.error) for means in known if means.error is not None]
    for figure in figures:
        digits = [len(number.partition(".")[2]) for number in figure]
        assert figure in [(f"{mean:.{digits[0]}f}", f"{error:.{digits[1]}f}") for mean, error in pairs], figure
    assert set(seconds) <= {f"{cost:.0f}" for cost in spent}


def same_items(own: dict, before: dict, key: str) -> bool:
    """Whether a recipe writes an entry of a dict, such as penalty.every.r1, that its base has."""
    section, name = key.split(".")
    return bool({(k, str(v)) for k, v in own[section][name].items()} & {(k, str(v)) for k, v in before[key].items()})


@pytest.mark.parametrize("recipe", [path for path in RECIPES if "base" in OmegaConf.load(path)], ids=lambda p: p.stem)
def test_recipe_differs_from_its_base_by_more_than_noise(recipe):
    """By what is played, on what, how, or by whom: not by lengths of runs and intervals alone."""
    given, before = (identity(loaded(path)) for path in (recipe, recipe.parent / base_of(recipe)))
    different = {line.split(".")[0] for line in differences(before, given)}
    assert different & {"data", "model", "game", "update", "penalty", "augment"}


@pytest.mark.parametrize(
    "text",
    ["yes.", "yes: 82.1 %.", "not yet", "not yet: 3.", "ours, stable.", "ours, stable: good (seed 0).",
     "ours, stable: 8.0.", "published: 8.0 (seed 0).", "published, matched: as the paper (seeds 0 to 2)."],
)  # fmt: skip
def test_loose_words_are_no_status(text):
    assert re.fullmatch(REPRODUCED, text) is None


def test_the_readme_lists_every_recipe_with_its_status():
    section = (ROOT / "README.md").read_text().partition("## Recipes\n")[2].partition("\n## ")[0]
    listed = []
    for row in re.findall(r"^\| `.*\|$", section, re.MULTILINE):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        listed += [(name, cells[-1]) for name in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(listed) == sorted((recipe.stem, status(recipe)) for recipe in RECIPES)


@pytest.mark.parametrize(
    "text",
    ["12 samples/s.", "2 minutes. One CPU core: 12 samples/s.", "2 minutes. One CPU core: 12 images/s, 760 MiB.",
     "2 minutes. One CPU core: 1200 samples/s, 760 MiB.", "2 minutes. One CPU core: 12 samples/s, 760 MiB. Or so.",
     "2 minutes, 760 MiB.", "One CPU core: 12 samples/s, 760 MiB"],
)  # fmt: skip
def test_loose_words_are_no_time(text):
    assert re.fullmatch(TIME, text) is None


# How long it takes, and where it was measured the sentence that benchmarks/recipes.py prints.
COST = r" One CPU core: (\d{1,3}(,\d{3})*(\.\d+)?) samples/s, [1-9][\d,]* MiB\."
TIME = rf"((?!samples/s|images/s|MiB|One CPU core).)+\.({COST})?"
STATUSES = ("published, matched", "ours, stable", "not yet")
# A figure and the seeds that it is of, or nothing.
REPRODUCED = r"(published, matched|ours, stable): (?=[^(]*\d)[^(]+\(.*\bseeds? \d.*\)\.|(not yet)\."


def header(recipe: Path) -> list[tuple[str, str]]:
    """The entries of a recipe's leading comment as (word, text), the first one called What."""
    entries = [("What", "")]
    for line in recipe.read_text().splitlines():
        if not line.startswith("# "):
            break
        start = re.match(r"# ([A-Z][a-z]+): (.*)", line)
        if start and len(entries[0][1]) > 0:
            entries.append(start.groups())
        else:
            word, text = entries[-1]
            entries[-1] = word, f"{text} {line[1:].strip()}".strip()
    return entries


def status(recipe: Path) -> str | None:
    """What a header says of its figure: one of STATUSES, None where it uses other words."""
    found = re.fullmatch(REPRODUCED, dict(header(recipe))["Reproduced"])
    return found and (found[1] or found[2])


def base_of(recipe: Path) -> str:
    return OmegaConf.load(recipe).base


def _defaults(own: dict) -> Config:
    names = {section: getattr(Config(), section).name for section in ("model", "game", "data")}
    names = {section: own.get(section, {}).get("name", name) for section, name in names.items()}
    return Config(**named_sections(**names))
