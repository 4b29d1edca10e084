"""Values that are refused, each on its own or together with others."""

import re

import pytest

from adversarial.domains import METHODS
from adversarial.objectives import OBJECTIVES
from adversarial.penalties import PENALTIES
from adversarial.rules import RULES
from adversarial.schedules import SCHEDULES
from models import FAMILIES
from tests.utils.config.configs import PLAYS, refusal
from utils.config.loading import load
from utils.config.sections import GAMES, INVARIANCE_METHODS
from utils.tasks.registry import TASKS, task_of

MOONS = ["game.name=adaptation", "data.name=moons", "model.name=dense"]
CAMERAS = ["game.name=invariance", "data.name=digit_cameras", "model.name=lenet", "game.objective=minimax"]

REFUSED = {
    "unknown-objective": (["game.objective=hing"], ["game.objective", "did you mean 'hinge'", *OBJECTIVES]),
    "unknown-rule": (["update.rule=singlepass"], ["update.rule", "did you mean 'single_pass'", *RULES]),
    "unknown-schedule-of-λ": (["update.schedule=cosine"], ["update.schedule", "cosine_decay", *SCHEDULES]),
    "unknown-schedule-of-γ": (["penalty.schedule.r1=linear"], ["penalty.schedule.r1", "linear_decay"]),
    "unknown-schedule-of-the-rates": (["optimizer.schedule=const"], ["optimizer.schedule", "did you mean 'constant'"]),
    "unknown-optimizer": (["optimizer.name=adan"], ["optimizer.name", "did you mean 'adam'", "sgd"]),
    "unknown-device": (["run.device=cuda"], ["run.device", "auto", "cpu"]),
    "unknown-precision": (["train.precision=bf_16"], ["train.precision", "did you mean 'bf16'"]),
    "fp16": (["train.precision=fp16"], ["train.precision=fp16", "bf16"]),
    "short-list": (["optimizer.betas=[0.5]"], ["optimizer.betas", "2 entries"]),
    "long-list": (["optimizer.betas=[0.5,0.9,0.9]"], ["optimizer.betas", "2 entries"]),
    "β-of-1": (["optimizer.betas=[0.5,1.0]"], ["optimizer.betas"]),
    "negative-β": (["optimizer.betas=[-0.5,0.9]"], ["optimizer.betas"]),
    "burn-in-of-no-length": (["burn_in.lr=4"], ["burn_in.lr", "burn_in.images="]),
    "burn-in-of-no-length-to-a-half-life": (["burn_in.ema_half_life=0"], ["burn_in.ema_half_life", "burn_in.images="]),
    "burn-in-of-no-length-of-γ": (["burn_in.gamma=10"], ["burn_in.gamma", "burn_in.images="]),
    "burn-in-of-a-p-that-is-adaptive": (
        ["burn_in.images=9", "burn_in.augment_p=0", "augment.name=ada"],
        ["burn_in.augment_p", "augment.name is ada", "augment.name=scheduled"],
    ),
    "burn-in-from-a-p-above-1": (
        ["burn_in.images=9", "burn_in.augment_p=2", "augment.name=scheduled"],
        ["burn_in.augment_p is 2", "at most 1"],
    ),
    "burn-in-of-negative-length": (["burn_in.images=-1"], ["burn_in.images", "at least 0"]),
    "burn-in-of-sgd": (
        ["burn_in.images=9", "burn_in.beta2=0.9", "optimizer.name=sgd"],
        ["burn_in.beta2", "optimizer.name"],
    ),
    "burn-in-from-a-β-of-1": (["burn_in.images=9", "burn_in.beta2=1"], ["burn_in.beta2", "below 1"]),
    "compile-with-r1": (
        ["train.compile=true", "penalty.r1=1", *MOONS],
        ["train.compile", "penalty.r1"],
    ),
    "compile-with-gp": (
        ["train.compile=true", "penalty.gp=1", *MOONS],
        ["train.compile", "penalty.gp"],
    ),
    "penalties-never": (["penalty.every.gp=0"], ["penalty.every.gp is 0", "at least 1"]),
    "pace-of-an-unknown-penalty": (["penalty.every.r3=4"], ["penalty.every", "'r3'", *PENALTIES]),
    "schedule-of-an-unknown-penalty": (
        ["penalty.schedule={ada: constant}"],
        ["penalty.schedule", "'ada'", *PENALTIES],
    ),
    "negative-weight": (["penalty.lecam=-1"], ["penalty.lecam is -1", "at least 0"]),
    "negative-probability": (["augment.name=scheduled", "augment.p=-0.5"], ["augment.p is -0.5", "at least 0"]),
    "target-of-signs": (["augment.name=ada", "augment.target=2"], ["augment.target is 2", "at most 1"]),
    "schedule-of-augmentation": (["augment.schedule=ramp"], ["augment.schedule", "ramp", "linear_growth"]),
    "empty-packs": (["game.pack=0"], ["game.pack is 0", "at least 1"]),
    "schedule-of-λ-without-an-end": (
        ["train.steps=null", "update.schedule=linear_growth"],
        ["update.schedule=linear_growth", "train.steps", "null", "update.schedule=constant"],
    ),
    "schedule-of-γ-without-an-end": (
        ["train.steps=null", "penalty.schedule.gp=linear_decay"],
        ["penalty.schedule.gp=linear_decay", "train.steps", "null", "penalty.schedule.gp=constant"],
    ),
    "schedule-of-a-look-ahead-without-an-end": (
        ["train.steps=null", "update.lookahead=1", "update.lookahead_schedule=cosine_decay"],
        ["update.lookahead_schedule=cosine_decay", "null", "update.lookahead_schedule=constant"],
    ),
    "schedule-of-the-rates-without-an-end": (
        ["train.steps=null", "optimizer.schedule=dann_lr"],
        ["optimizer.schedule=dann_lr", "train.steps", "null", "optimizer.schedule=constant"],
    ),
    "reused-fakes-in-a-single-pass": (
        ["update.reuse_fakes=true"],
        ["update.reuse_fakes", "alternating", "single_pass"],
    ),
    "reused-fakes-simultaneously": (
        ["update.reuse_fakes=true", "update.rule=simultaneous"],
        ["update.reuse_fakes", "alternating", "simultaneous"],
    ),
    "reused-features": (
        [
            "game.name=adaptation",
            "data.name=moons",
            "model.name=dense",
            "update.rule=alternating",
            "update.reuse_fakes=true",
        ],
        ["update.reuse_fakes", "game.name=adaptation", "update.rule=simultaneous"],
    ),
    "looking-ahead-in-turns": (
        ["update.lookahead=1", "update.rule=alternating"],
        ["update.lookahead=1.0", "alternating", "update.rule=single_pass", "update.lookahead=0"],
    ),
    "a-generator-that-looks-ahead-in-turns": (
        ["update.generator_lookahead=0.5", "update.rule=alternating"],
        ["update.generator_lookahead=0.5", "alternating", "update.generator_lookahead=0"],
    ),
    "looking-back": (["update.lookahead=-1"], ["update.lookahead", "-1"]),
    "run-name-with-a-slash": (["run.name=a/b"], ["run.name", "a/b", "run.dir"]),
    "run-name-upwards": (["run.name=.."], ["run.name", "run.dir"]),
    "networks-of-another-game": (["model.name=dense"], ["model.name=dense", "game.name=generation", "dcgan", "mlp"]),
    "networks-that-make-images-in-a-game-of-domains": (
        ["game.name=adaptation", "data.name=moons"],
        ["model.name=dcgan", "game.name=adaptation", "dense", "lenet", "resnet"],
    ),
    "unknown-best": (
        ["checkpoint.best=FID"],
        ["checkpoint.best=FID", "game.name=generation", "auto", "none", *GAMES["generation"].metrics],
    ),
    "best-by-a-metric-of-another-game": (
        [*CAMERAS, "checkpoint.best=BNM"],
        ["checkpoint.best=BNM", "game.name=invariance", *GAMES["invariance"].metrics],
    ),
    "features-of-domains": ([*MOONS, "evaluate.features=lite0"], ["evaluate.features=lite0", "leave it auto"]),
    "file-that-nobody-reads": (["evaluate.features_file=x.pt"], ["evaluate.features_file", "evaluate.features=file"]),
    "features-divided-by-nothing": (
        ["evaluate.features=file", "evaluate.features_std=[1,0,1]"],
        ["evaluate.features_std", "must be above 0"],
    ),
    "unknown-features": (["evaluate.features=lite"], ["evaluate.features 'lite' is unknown; did you mean 'lite0'"]),
    "augmented-domains": ([*MOONS, "augment.name=diffaugment"], ["augment.name=diffaugment", "game.name=generation"]),
    "dragan-of-domains": ([*MOONS, "penalty.dragan=1"], ["penalty.dragan=1.0", "use penalty.dragan=0"]),
    "lecam-of-domains": ([*MOONS, "penalty.lecam=1"], ["penalty.lecam=1.0", "use penalty.lecam=0"]),
    "bcr-of-domains": ([*MOONS, "penalty.consistency=1"], ["penalty.consistency=1.0", "use penalty.consistency=0"]),
    "path-of-domains": ([*MOONS, "penalty.path=1"], ["penalty.path=1.0", "use penalty.path=0"]),
    "adda-without-a-pretrained-run": (
        [*MOONS, "game.method=adda"],
        ["init.run=''", "game.method=adda", "game.method=source_only"],
    ),
    "unknown-part": (["init.run=runs/a", "init.parts=[generator,critics]"], ["init.parts[1]", "did you mean 'critic'"]),
    "unknown-weights": (["init.run=runs/a", "init.weights=last"], ["init.weights", "same", "ema", "raw", "best"]),
    "no-learning": (["optimizer.scale.critic=0"], ["optimizer.scale.critic is 0", "above 0"]),
    "unknown-method": ([*MOONS, "game.method=dan"], ["game.method 'dan' is unknown; did you mean 'dann'", "cdan_e"]),
    "method-of-adaptation": ([*CAMERAS, "game.method=adda"], ["game.method 'adda' is unknown", "mada", "layers"]),
    "pairs-without-fakes": (
        [*CAMERAS, "game.objective=relativistic"],
        ["game.objective=relativistic", "game.name=invariance", "minimax"],
    ),
    "gp-without-fakes": (
        [*CAMERAS, "penalty.gp=1"],
        ["penalty.gp", "needs fakes", "game.name=invariance", "use penalty.gp=0"],
    ),
    "r2-without-fakes": (
        [*CAMERAS, "penalty.r2=1"],
        ["penalty.r2", "needs fakes", "game.name=invariance", "use penalty.r2=0"],
    ),
    "class-loss-without-classes": (["game.auxiliary=1"], ["game.auxiliary=1.0", "game.conditional=true"]),
    "class-loss-in-a-single-pass": (
        ["game.auxiliary=1", "game.conditional=true"],
        ["game.auxiliary", "update.rule=simultaneous", "update.rule=alternating"],
    ),
    "label-layers-without-labels": (
        ["model.name=stylegan2", "model.label_layers=2"],
        ["model.label_layers=2", "game.conditional=true", "model.label_layers=8"],
    ),
    "shared-embedding-without-labels": (
        ["model.name=resnet_gan", "model.shared_embedding=16"],
        ["model.shared_embedding=16", "game.conditional=true", "model.shared_embedding=0"],
    ),
    "packs-of-classes": (["game.pack=2", "game.conditional=true"], ["game.pack=2", "game.conditional=false"]),
    "unknown-norm": (["model.critic_norm=bathc"], ["model.critic_norm 'bathc'", "did you mean 'batch'", "spectral"]),
    "null-norm": (["model.critic_norm=null"], ["model.critic_norm", "none", "batch"]),
    "unknown-network": (
        ["game.name=adaptation", "data.name=images", "model.name=resnet", "model.network=resnet5"],
        ["model.network 'resnet5'", "did you mean 'resnet50'", "resnet18"],
    ),
    "share-above-1": (["model.name=stylegan2", "model.mixing=1.5"], ["model.mixing is 1.5", "at most 1"]),
    "dropout-of-all": (
        ["game.name=adaptation", "data.name=images", "model.name=lenet", "model.dropout=1"],
        ["model.dropout is 1.0", "below 1"],
    ),
    "no-channels-at-one-size": (["model.name=r3gan", "model.widths=[8,0]"], ["model.widths[1] is 0", "at least 1"]),
    "run-name-of-here": (["run.name=."], ["run.name", "run.dir"]),
}


@pytest.mark.parametrize(("overrides", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_overrides(empty, overrides, words):
    text = refusal(empty, *overrides)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("best", ["auto", "none", "frechet DISTANCE", *GAMES["generation"].metrics])
def test_metrics_by_which_the_best_model_may_be_chosen(empty, best):
    assert load(empty, ["evaluate.every=5", f"checkpoint.best={best}"]).checkpoint.best == best


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=0", "train.batch_size=0", "update.warmup=-1", "penalty.gp=-0.5",
        "optimizer.momentum=-1", "optimizer.weight_decay=-1", "update.critic_steps=0", "update.coefficient=-1",
        "penalty.r1=-0.5", "penalty.r2=-0.5", "penalty.r1=nan", "optimizer.generator_lr=-1", "optimizer.critic_lr=-1",
        "optimizer.critic_lr=nan", "optimizer.warmup=-1", "ema.half_life=-1", "ema.ramp_up=-0.1", "log.every=0",
        "guard.score_gap=-1",
        "guard.patience=0", "guard.rollbacks=-1", "train.accumulate=0",
        "sample.every=-1", "sample.count=0", "evaluate.every=-1", "evaluate.samples=1",
        "checkpoint.every=0", "checkpoint.keep=1", "model.latent_dim=0", "model.critic_width=-1",
    ],
)  # fmt: skip
def test_out_of_range(empty, override):
    """The sentence names the key, the value that was given, and the bound."""
    key, value = override.split("=")
    said = re.fullmatch(rf"{re.escape(key)} is (\S+) and must be at least [0-2]\.", refusal(empty, override))
    assert said
    assert float(said.group(1)) == float(value) or said.group(1) == value == "nan"


def test_a_bound_of_the_data(empty):
    text = refusal(empty, "data.name=folder", "data.workers=-1")
    assert text == "data.workers is -1 and must be at least 0."


def test_a_bound_of_another_game(empty):
    assert refusal(empty, *MOONS, "game.margin=-1") == "game.margin is -1.0 and must be at least 0."


@pytest.mark.parametrize("family", FAMILIES)
def test_bounds_of_networks(empty, family):
    """Every whole number has one: sizes are at least 1, and at least 0 where 0 stands for none."""
    for name, field in FAMILIES[family].config.__dataclass_fields__.items():
        if type(field.default) is int:
            least = 0 if name in ("critic_depth", "shared_embedding") else 1
            words = [f"model.name={family}", *PLAYS.get(family, ["game.conditional=true"])]
            load(empty, [*words, f"model.{name}={least}"])
            text = refusal(empty, *words, f"model.{name}={least - 1}")
            assert text == f"model.{name} is {least - 1} and must be at least {least}."


@pytest.mark.parametrize("key", ["penalty.r1", "optimizer.critic_lr", "update.coefficient", "ema.half_life"])
@pytest.mark.parametrize("value", ["inf", "Infinity"])
def test_infinite(empty, key, value):
    assert refusal(empty, f"{key}={value}") == f"{key} is inf and must be finite."


def test_infinity_as_yaml_writes_it(empty):
    text = refusal(empty, "penalty.r1=.inf")
    assert "penalty.r1" in text
    assert ".inf" in text


@pytest.mark.parametrize("value", ["0", "-1e-8"])
def test_an_epsilon_that_would_divide_by_zero(empty, value):
    assert refusal(empty, f"optimizer.eps={value}") == f"optimizer.eps is {float(value)} and must be above 0."


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=1", "train.steps=null", "train.batch_size=1", "update.coefficient=0", "penalty.r1=0",
        "optimizer.critic_lr=0", "ema.half_life=0", "ema.ramp_up=0", "sample.every=0", "evaluate.every=0",
        "checkpoint.keep=2", "optimizer.betas=[0,0]", "augment.name=scheduled augment.p=1",
        "augment.name=ada augment.target=-1",
    ],
)  # fmt: skip
def test_the_edge_of_a_range_is_in_it(empty, override):
    load(empty, override.split())


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_those_of_the_registry(empty, method):
    """Of a game of one set of samples those that need no target: the others are refused by name."""
    pretrained = ["init.run=runs/source"] if METHODS[method].split else []
    assert load(empty, [*MOONS, f"game.method={method}", *pretrained]).game.method == method
    if method in INVARIANCE_METHODS:
        assert load(empty, [*CAMERAS, f"game.method={method}"]).game.method == method
    else:
        assert f"'{method}' is unknown" in refusal(empty, *CAMERAS, f"game.method={method}")


def test_the_methods_that_need_a_pretrained_run_are_those_with_two_networks():
    assert [name for name, method in METHODS.items() if method.split] == ["adda"]


@pytest.mark.parametrize("name", TASKS)
def test_every_game_has_metrics_and_a_task(empty, name):
    overrides = {"generation": [], "adaptation": MOONS, "invariance": CAMERAS}[name]
    task = task_of(load(empty, overrides))
    assert task is TASKS[name]
    assert task.best_metric in ("", *GAMES[name].metrics)
