"""Runs that start from another one's networks, and runs that fork another one."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import export
import train
from tests.runs import ROOT, SMALL, TINY, fingerprint, run
from tests.untrained import untrained
from utils.config.loading import load
from utils.errors import UserError
from utils.run import export as exporting
from utils.run.sources import of_export
from utils.run.warm import take_over
from utils.tasks.generation import Generation
from utils.tasks.registry import task_of
from utils.training import checkpoint
from utils.training.checkpoint import Checkpoint
from utils.training.state import RunState

DENSE = ["optimizer.generator_lr=0.01", "ema.half_life=20", "checkpoint.every=2", "checkpoint.keep=9", "log.every=1"]


@pytest.fixture(scope="module", autouse=True)
def _bare():
    """Pictures and evaluations cost more than the training here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generation, "picture", lambda *_: torch.zeros(3, 8, 8, dtype=torch.uint8))
        patch.setattr(Generation, "evaluate", lambda *_: [])
        patch.setattr(Generation, "check_evaluation", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A finished run with checkpoints of steps 2 and 4, the earlier of which it calls its best."""
    folder = tmp_path_factory.mktemp("runs")
    assert run(folder, *DENSE, "run.name=source", "train.steps=4") == 0
    shutil.copytree(folder / "source/checkpoints/step-00000002", folder / "source/best/step-00000002")
    return folder / "source"


def begin(source: Path, name: str, *overrides: str) -> Path:
    """A run of one step from ``source``; returns its folder."""
    assert run(source.parent, *DENSE, f"run.name={name}", f"init.run={source}", "train.steps=1", *overrides) == 0
    return source.parent / name


def tensors(run: Path, step: int, network: str) -> dict[str, Tensor]:
    return load_file(run / f"checkpoints/step-{step:08d}/{network}.safetensors")


def random_networks(run: Path) -> tuple[nn.Module, nn.Module]:
    """What the run would have begun with if it had not started from another one."""
    config, saved = load(run / "config.yaml", []), checkpoint.newest(run / "checkpoints", print)
    return task_of(config).networks(config, saved.state.sizes)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "step", "raw", "average"),
    [
        ([], 4, "generator", "generator_ema"),
        (["init.weights=ema"], 4, "generator_ema", "generator_ema"),
        (["init.weights=raw"], 4, "generator", "generator"),
        (["init.weights=best"], 2, "generator_ema", "generator_ema"),
        (["init.step=2"], 2, "generator", "generator_ema"),
        (["update.lookahead=1"], 4, "generator", "generator_ema"),
    ],
    ids=str,
)
def test_the_players_start_from_the_other_run(source, words, step, raw, average):
    ours = begin(source, "-".join(["start", *words]), *words)
    assert same(tensors(ours, 0, "generator"), tensors(source, step, raw))
    assert same(tensors(ours, 0, "generator_ema"), tensors(source, step, average))
    assert same(tensors(ours, 0, "critic"), tensors(source, step, "critic"))
    assert tensors(ours, 0, "critic_optimizer") == {}, "a start has fresh optimisers"
    if "update.lookahead=1" in words:
        before = tensors(ours, 0, "critic_before")
        assert all(torch.equal(x, tensors(source, step, "critic")[name]) for name, x in before.items())
    assert not same(tensors(source, 4, "generator"), tensors(source, 4, "generator_ema")), "these tests could not fail"


def test_a_player_may_start_alone_and_the_other_at_random(source):
    ours = begin(source, "critic alone", "init.parts=[critic]")
    fresh, _ = random_networks(ours)
    assert same(tensors(ours, 0, "critic"), tensors(source, 4, "critic"))
    assert same(tensors(ours, 0, "generator"), dict(fresh.state_dict()))


def test_layers_that_do_not_fit_start_at_random_and_are_named(source):
    ours = begin(source, "with classes", "game.conditional=true")
    fresh = dict(zip(("generator", "critic"), random_networks(ours), strict=True))
    own = {"generator": {"embed.weight", "layers.0.weight", "layers.0.bias"}, "critic": {"embed.weight"}}
    for player, network in fresh.items():
        theirs, random = tensors(source, 4, player), network.state_dict()
        for name, value in tensors(ours, 0, player).items():
            assert torch.equal(value, random[name] if name in own[player] else theirs[name]), name
    log = (ours / "log.txt").read_text()
    assert "Of the generator 3 of 17 tensors do not fit and start at random: embed.weight, layers.0.weight" in log
    assert "Of the critic 1 of 7 tensors do not fit and start at random: embed.weight." in log


def test_a_layer_is_taken_over_whole_or_not_at_all():
    """Or spectral norm's vectors of other weights would say that these are small."""
    theirs = nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.Linear(4, 2)).state_dict()
    ours = nn.Sequential(spectral_norm(nn.Linear(5, 4)), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    told = take_over(ours, {**theirs, "2.weight": torch.zeros(1)}, "critic", Checkpoint(Path("x"), {}, RunState(0), ""))
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("0.") else theirs[name]), name
    assert told == [
        "Of the critic 4 of 6 tensors do not fit and start at random: 0.bias, 0.parametrizations.weight.original, "
        "0.parametrizations.weight.0._u, 0.parametrizations.weight.0._v.",
        "Of the other critic 1 tensors have no place here: 2.weight.",
    ]


# --- Exports


@pytest.fixture(scope="module")
def exported(source) -> Path:
    """The average of the finished run, as ``export.py`` writes it."""
    folder = source.parent / "exported"
    assert export.main([str(source), str(folder), "--weights", "ema"]) == 0
    return folder


def test_generator_and_average_start_from_an_export_and_the_critic_at_random(exported):
    ours = begin(exported, "of an export")
    _, fresh = random_networks(ours)
    weights = load_file(exported / "model.safetensors")
    assert same(tensors(ours, 0, "generator"), weights)
    assert same(tensors(ours, 0, "generator_ema"), weights)
    assert same(tensors(ours, 0, "critic"), dict(fresh.state_dict()))
    log = (ours / "log.txt").read_text()
    digest = hashlib.sha256((exported / "model.safetensors").read_bytes()).hexdigest()
    assert f"Starts from {exported} (sha256 of model.safetensors {digest}): generator and average." in log
    assert "An export holds no critic, which starts at random." in log


def test_what_does_not_fit_of_an_export_starts_at_random(exported):
    ours = begin(exported, "of an export, with classes", "game.conditional=true")
    assert (
        "Of the generator 3 of 17 tensors do not fit and start at random: embed.weight"
        in (ours / "log.txt").read_text()
    )


def test_adda_starts_from_an_exported_recogniser(tmp_path):
    opened = untrained(tmp_path, "lenet")
    description, network = exporting.exported(opened)
    exporting.write(tmp_path / "exported", description, network, "")
    weights = load_file(tmp_path / "exported/model.safetensors")
    source = of_export(opened.config, tmp_path / "exported")
    theirs = opened.task.adopt(opened.config, source)
    started = opened.task.networks(opened.config, opened.state.sizes)[0]
    assert take_over(started, theirs["generator"], "generator", source) == []
    assert same({name: x for name, x in started.state_dict().items() if not name.startswith("source.")}, weights)
    assert all(torch.equal(x, weights[f"features.{name}"]) for name, x in started.source.state_dict().items())


# --- Frozen layers


@pytest.mark.parametrize("rule", ["single_pass", "simultaneous", "alternating"])
def test_frozen_layers_and_their_buffers_keep_still(tmp_path, rule):
    """Spectral norm's vectors, BatchNorm's statistics, and the weights under clipping and looking ahead."""
    words = ["model.critic_norm=spectral", "init.freeze=[critic.features.0,generator.layers.2]", "train.steps=2"]
    words += ["update.lookahead=1"] if rule != "alternating" else []
    assert run(tmp_path, *DENSE, *words, "guard.rollbacks=1", f"update.rule={rule}") == 0
    for network, frozen in (("critic", "features.0."), ("generator", "layers.2."), ("generator_ema", "layers.2.")):
        before, after = (tensors(tmp_path / "digits", step, network) for step in (0, 2))
        still = {name for name in before if torch.equal(before[name], after[name])}
        assert {name for name in before if name.startswith(frozen)} <= still
        weights = {name for name in before if name.endswith(("weight", "original")) and not name.startswith(frozen)}
        assert not still & weights, "all other weights learn"
    state = tensors(tmp_path / "digits", 2, "critic_optimizer")
    assert state
    assert not any(name.partition("/")[2].startswith("features.0.") for name in state)


# --- Forks


def test_a_fork_that_changes_nothing_is_the_run_itself(source):
    ours = begin(source, "fork", "init.fork=true", "init.step=2", "train.steps=4")
    want = fingerprint(source.parent, "source")
    got = fingerprint(source.parent, "fork")
    assert {name: got[name] for name in want if name != "state.json"} == {
        name: want[name] for name in want if name != "state.json"
    }
    records = [json.loads(line) for line in (ours / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == [3, 4]


def test_a_fork_may_learn_otherwise_and_says_so(source):
    """What only it keeps from step to step begins where it does."""
    words = ["optimizer.critic_lr=0.003", "augment.name=ada", "train.batch_size=16", "update.lookahead=1"]
    ours = begin(source, "other fork", "init.fork=true", "init.step=2", "train.steps=3", *words)
    for name in ("generator", "generator_ema", "critic", "generator_optimizer", "critic_optimizer"):
        assert same(tensors(ours, 2, name), tensors(source, 2, name))
    critic = tensors(source, 2, "critic")
    assert all(torch.equal(value, critic[name]) for name, value in tensors(ours, 2, "critic_before").items())
    line = next(x for x in (ours / "config.yaml").read_text().splitlines() if "History: Forks" in x)
    assert f"{source}/checkpoints/step-00000002 (sha256 of its manifest " in line
    for change in (
        "-> 0.003",
        "augment.name: none -> ada",
        "train.batch_size: 8 -> 16",
        "update.lookahead: 0.0 -> 1.0",
    ):
        assert change in line
    assert line.removeprefix("# History: ") in (ours / "log.txt").read_text()
    state = json.loads((ours / "checkpoints/step-00000003/state.json").read_text())
    assert state["history"] == [line.removeprefix("# History: ")]
    assert run(source.parent, *DENSE, "run.name=third", f"init.run={ours}", "train.steps=1") == 0
    assert (source.parent / "third/config.yaml").read_text().count("# History: ") == 2


# --- What cannot be started from

WRONG = {
    "no such folder": (["init.run=nowhere"], ["init.run=nowhere holds neither a run nor an export"]),
    "no checkpoint yet": (["init.run={runs}/begun"], ["begun holds no checkpoint", "wait", "checkpoint.every"]),
    "no best": (["init.run={runs}/begun", "init.weights=best"], ["no checkpoint in best", "init.weights=ema"]),
    "itself": (["init.run={runs}/wrong"], ["is this run itself", "run.name"]),
    "no such step": (["init.step=3"], ["init.step=3", "of step 2, 4", "checkpoint.keep"]),
    "another family": (["model.name=mlp"], ["model.name=dcgan and this run model.name=mlp"]),
    "another game": (
        [],
        ["game.name=generation and this run game.name=adaptation"],
    ),
    "nothing fits": (["model.critic_width=5"], ["Nothing of the critic", "init.parts"]),
    "unknown layer": (["init.freeze=[critic.featurs.0]"], ["'critic.featurs.0'", "near it are critic.features.0"]),
    "unknown player": (["optimizer.scale={discriminator: 2}"], ["optimizer.scale", "'discriminator'"]),
    "all of a player": (["init.freeze=[critic.features,critic.last]"], ["nothing of the critic to learn"]),
    "fork, other networks": (
        ["init.fork=true", "model.critic_width=5"],
        ["model.critic_width: 4 -> 5", "init.fork=false"],
    ),
    "fork, other optimisers": (["init.fork=true", "optimizer.name=sgd"], ["optimizer.name: adam -> sgd"]),
    "fork, nothing left": (["init.fork=true", "train.steps=4"], ["from step 4", "train.steps=4", "init.step"]),
}
OF_EXPORT = {
    "step": (["init.step=4"], ["init.step=4", "is an export", "leave that out"]),
    "fork": (["init.fork=true"], ["init.fork=true", "no optimisers"]),
    "raw weights": (["init.weights=raw"], ["init.weights=raw", "one set of weights"]),
    "critic alone": (["init.parts=[critic]"], ["init.parts=[critic]", "no critic", "leave that out"]),
    "nobody": (["init.parts=[]"], ["init.parts=[]", "leave that out"]),
    "another family": (["model.name=mlp"], ["a generator of model.name=dcgan", "needs a generator of model.name=mlp"]),
    "another game": ([], ["a generator of model.name=dcgan", "needs a recogniser of model.name=dense"]),
    "no weights": (["init.run={runs}/empty"], ["empty is no export that can be read", "model.safetensors"]),
    "damaged weights": (["init.run={runs}/damaged"], ["damaged is no export that can be read"]),
    "of something else": (["init.run={runs}/bert"], ["bert is no export that can be read", "config.json"]),
    "nothing fits": (["model.generator_width=5"], ["Nothing of the generator", "exported"]),
}
# Recipes and sizes of these.
OTHERS = {"another game": ("moons", TINY["dense"]), "another family": ("digits", TINY["mlp"])}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_sentence(source, case):
    (source.parent / "begun").mkdir(exist_ok=True)
    (source.parent / "begun/config.yaml").touch()
    refused(source, case, *WRONG[case])


@pytest.mark.parametrize("case", OF_EXPORT)
def test_what_an_export_does_not_hold_is_one_sentence(exported, case):
    runs = exported.parent
    for name in ("empty", "damaged", "bert"):
        (runs / name).mkdir(exist_ok=True)
        shutil.copy(exported / "config.json", runs / name)
    (runs / "damaged/model.safetensors").write_bytes((exported / "model.safetensors").read_bytes()[:-9])
    (runs / "bert/config.json").write_text('{"model_type": "bert"}')
    refused(exported, case, *OF_EXPORT[case])


def refused(source: Path, case: str, words: list[str], parts: list[str]) -> None:
    """A run that asks for ``words`` is refused by one sentence, which has all ``parts``."""
    recipe, sizes = OTHERS.get(case, ("digits", TINY["dcgan"]))
    words = [*sizes, *SMALL, *(word.replace("{runs}", str(source.parent)) for word in words)]
    place = [f"run.dir={source.parent}", "run.name=wrong", "run.device=cpu"]
    with pytest.raises(UserError) as caught:
        train.main([str(ROOT / f"configs/{recipe}.yaml"), f"init.run={source}", *place, *words])
    text = str(caught.value)
    assert "\n" not in text
    assert [part for part in parts if part not in text] == [], text
