"""Games of domains from the command line: tiny runs of every method and rule, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import evaluate
import sample
import train
from adversarial.domains import METHODS
from adversarial.rules import RULES
from adversarial.schedules import scheduled
from tests import runs
from tests.runs import ROOT, fingerprint, signal_at
from utils.data import domains
from utils.data.pairs import Domain, Pair
from utils.data.points import Points
from utils.data.samples import Resident
from utils.errors import UserError
from utils.evaluation.recognisers import ORACLE
from utils.tasks.adaptation import Adaptation
from utils.tasks.invariance import Invariance

# What recipes may change is set here, so that the runs stay what their tests say of them.
PLAIN = ["game.objective=minimax", "penalty.r1=0", "penalty.r2=0", "update.coefficient=1", "update.schedule=constant"]
SHORT = ["train.steps=4", "log.every=1", "sample.every=0", "evaluate.every=0", "run.name=run"]
CAMERAS = ["game.name=invariance", "data.name=digit_cameras", "data.resolution=8"]


def run(folder: Path, *overrides: str, recipe: str = "moons") -> int:
    return runs.run(folder, *PLAIN, *SHORT, *overrides, recipe=f"configs/{recipe}.yaml")


def records(folder: Path, kind: str) -> list[dict]:
    lines = (folder / "run/metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def weights(folder: Path, name: str = "generator") -> dict[str, torch.Tensor]:
    return load_file(sorted((folder / "run/checkpoints").glob("step-*"))[-1] / f"{name}.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def refusal(folder: Path, *overrides: str, recipe: str = "moons") -> str:
    with pytest.raises(UserError) as caught:
        run(folder, *overrides, recipe=recipe)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert not list(folder.glob("*/checkpoints/*"))
    return message


@pytest.fixture(autouse=True)
def _quick_probe(monkeypatch):
    """These tests look at what is reported of the probe critic, not at how good it is."""
    monkeypatch.setattr("utils.evaluation.domain_critics.PROBE_STEPS", 3)


@pytest.fixture
def bare(monkeypatch):
    """Runs without pictures and evaluations, which cost more than the training here."""
    for kind in (Adaptation, Invariance):
        monkeypatch.setattr(kind, "picture", lambda *_: torch.zeros(3, 8, 8, dtype=torch.uint8))
        monkeypatch.setattr(kind, "evaluate", lambda *_: [])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A finished run that ADDA may begin with."""
    folder = tmp_path_factory.mktemp("pretrained")
    assert run(folder, "game.method=source_only") == 0
    return folder / "run"


def words(method: str, pretrained: Path) -> list[str]:
    return [
        f"game.method={method}",
        *([f"init.run={pretrained}", "init.parts=[generator]"] if METHODS[method].split else []),
    ]


# --- Every method and rule


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_under_every_rule(tmp_path, monkeypatch, bare, pretrained, method, rule):
    assert run(tmp_path, f"update.rule={rule}", *words(method, pretrained)) == 0
    steps = records(tmp_path, "train")
    assert [record["step"] for record in steps] == [1, 2, 3, 4]
    for record in steps:
        assert record["critic_gradient_norm"] > 0
        assert record["generator_gradient_norm"] > 0
        assert ("task_loss" in record) == (method != "adda")
        assert "critic_accuracy_source" in record
        assert "critic_accuracy_target" in record
    assert len(records(tmp_path, "finished")) == 1
    assert (tmp_path / "run/samples/step-00000004.png").is_file()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_drawn_and_measured(tmp_path, pretrained, method):
    assert run(tmp_path, "train.steps=1", *words(method, pretrained)) == 0
    measured = {record["metric"]: record for record in records(tmp_path, "metric")}
    others = {"proxy A-distance", "critic accuracy", "probe critic accuracy", ORACLE}
    assert measured.keys() == {*Adaptation.metrics, *others}
    assert [name for name, record in measured.items() if record.get("oracle")] == [ORACLE]
    width, height = Image.open(tmp_path / "run/samples/step-00000001.png").size
    assert width / height == pytest.approx(2.7, abs=0.01), "two panels of features and the plane of the inputs"


def test_both_shared_rules_give_the_same_generator(tmp_path, bare):
    """Critic and recogniser move from the same point: one backward and two differ by rounding alone."""
    for rule in ("simultaneous", "single_pass"):
        overrides = [f"update.rule={rule}", "game.method=cdan_e", "game.objective=non_saturating"]
        assert run(tmp_path / rule, *overrides) == 0
    one, other = (weights(tmp_path / rule) for rule in ("simultaneous", "single_pass"))
    for name, value in one.items():
        # float32 through four Adam steps, which divide small gradients by their size; λ = 0.9 would move it by 3e-3
        assert torch.allclose(value, other[name], atol=1e-4), name


# --- The baselines


@pytest.mark.parametrize("rule", RULES)
def test_without_an_adversary_the_generators_gradient_is_that_of_the_task_alone(tmp_path, bare, rule):
    """The critic learns at any rate, or is of another size, and no bit of the recogniser moves."""
    variants = {
        "source_only": ["game.method=source_only"],
        "other critic": ["game.method=source_only", "optimizer.critic_lr=0.5", "model.critic_width=4"],
        "no coefficient": ["game.method=dann", "update.coefficient=0"],
        "dann": ["game.method=dann"],
    }
    for name, overrides in variants.items():
        assert run(tmp_path / name, f"update.rule={rule}", *overrides) == 0
    networks = {name: weights(tmp_path / name) for name in variants}
    assert same(networks["source_only"], networks["other critic"])
    assert same(networks["source_only"], networks["no coefficient"])
    assert not same(networks["source_only"], networks["dann"])
    assert {record["coefficient"] for record in records(tmp_path / "source_only", "train")} == {0}


def test_adda_starts_from_the_source_and_keeps_its_side(tmp_path, bare, pretrained):
    assert run(tmp_path, *words("adda", pretrained)) == 0
    trained = load_file(sorted((pretrained / "checkpoints").glob("step-*"))[-1] / "generator_ema.safetensors")
    ours = weights(tmp_path)
    for name, value in trained.items():
        kept = name if name.startswith("head.") else name.replace("features.", "source.")
        assert torch.equal(ours[kept], value)
        assert name.startswith("head.") or not torch.equal(ours[name], value), "the target's side has moved"


# --- Resuming


@pytest.mark.parametrize("stop", [0, 2])
@pytest.mark.parametrize("method", ["dann", "adda"])
def test_stopped_and_resumed_gives_the_same_bits_and_the_same_coefficient(
    tmp_path, monkeypatch, bare, pretrained, method, stop
):
    overrides = [*words(method, pretrained), "train.steps=6", "update.schedule=dann_lambda", "update.warmup=2"]
    assert run(tmp_path / "whole", *overrides) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, stop)
        assert run(tmp_path / "parts", *overrides) == 75
    assert run(tmp_path / "parts", *overrides) == 0
    assert fingerprint(tmp_path / "parts", "run") == fingerprint(tmp_path / "whole", "run")
    by_hand = [scheduled(1.0, "dann_lambda", step, 6, 2) for step in range(6)]
    for part in ("whole", "parts"):
        assert [record["coefficient"] for record in records(tmp_path / part, "train")] == by_hand


# --- Target labels


class Sealed(torch.Tensor):
    """Labels that must not be used."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        raise AssertionError(f"a target label was used by {function}")


@pytest.fixture
def sealed(monkeypatch):
    """All labels of the target raise wherever they are touched, from the pair of domains on."""
    moons = domains.DOMAINS["moons"]

    def load(config: Points, seed: int) -> Pair:
        pair = moons(config, seed)
        splits = (Resident(split.x, split.label.as_subclass(Sealed)) for split in (pair.target.train, pair.target.test))
        return pair._replace(target=Domain(pair.target.name, *splits))

    monkeypatch.setitem(domains.DOMAINS, "moons", load)


@pytest.mark.parametrize(("method", "metric"), [("dann", "auto"), ("mada", "SND"), ("mdd", "DEV risk")])
def test_no_target_label_is_touched_by_training_or_by_choosing_a_model(tmp_path, monkeypatch, sealed, method, metric):
    """Without the oracle, which is for reports alone, nothing asks for them: logs, pictures, the best model neither."""
    monkeypatch.setattr("utils.tasks.adaptation.oracle_records", lambda *_: [])
    chosen = [f"checkpoint.best={metric}", "evaluate.every=2"]
    assert run(tmp_path, f"game.method={method}", *chosen) == 0
    assert len(list((tmp_path / "run/best").glob("step-*"))) == 1
    assert {record["step"] for record in records(tmp_path, "metric")} == {2, 4}


def test_the_oracle_does_touch_target_labels(tmp_path, sealed):
    """So the test above can fail."""
    with pytest.raises(AssertionError, match="a target label was used"):
        run(tmp_path, "evaluate.every=2")


def test_the_upper_bound_does_train_on_target_labels(tmp_path, monkeypatch, sealed):
    """And training does, where it is asked to."""
    monkeypatch.setattr("utils.tasks.adaptation.oracle_records", lambda *_: [])
    with pytest.raises(AssertionError, match="a target label was used"):
        run(tmp_path, "game.method=target_only")


# --- Invariance


@pytest.mark.parametrize("objective", ["minimax", "confusion"])
@pytest.mark.parametrize("rule", RULES)
def test_invariance_trains_under_every_rule(tmp_path, bare, rule, objective):
    overrides = [*CAMERAS, f"update.rule={rule}", f"game.objective={objective}"]
    if (rule, objective) == ("single_pass", "confusion"):
        message = refusal(tmp_path, *overrides)
        assert "4 attributes" in message
        assert "update.rule=simultaneous or update.rule=alternating" in message
        return
    assert run(tmp_path, *overrides) == 0
    last = records(tmp_path, "train")[-1]
    assert last["generator_gradient_norm"] > 0
    assert "source_accuracy" in last
    assert not any("target" in name or "none" in name for name in last)


@pytest.mark.parametrize("method", ["dann", "mada"])
def test_invariance_is_drawn_and_measured(tmp_path, method):
    assert run(tmp_path, *CAMERAS, "train.steps=1", f"game.method={method}") == 0
    measured = {record["metric"]: record for record in records(tmp_path, "metric")}
    assert measured.keys() == {"source accuracy", "critic accuracy", "probe critic accuracy", ORACLE}
    assert "1.39" in measured["critic accuracy"]["note"], "the loss at chance over four rooms"
    assert (tmp_path / "run/samples/step-00000001.png").is_file()


# --- What is refused

WRONG = {
    "invariance, relativistic": ([*CAMERAS, "game.objective=relativistic"], ["relativistic", "non_saturating"]),
    "invariance, penalty.gp": ([*CAMERAS, "penalty.gp=1"], ["penalty.gp=1.0 needs fakes", "use penalty.gp=0"]),
    "invariance, adda": ([*CAMERAS, "game.method=adda"], ["'adda' is unknown", "dann"]),
    "invariance, no attributes": (["game.name=invariance"], ["at least two attributes", "moons"]),
    "BatchNorm": (["model.critic_norm=batch", "model.critic_depth=1"], ["model.critic_norm=batch", "simultaneous"]),
    "BatchNorm, conditional": (
        ["model.critic_norm=batch", "model.critic_depth=1", "game.method=mdd"],
        ["simultaneous"],
    ),
    "a recogniser for a GAN": (["game.name=generation", "data.name=ring"], ["dense", "game.name=generation", "mlp"]),
    "data of a GAN": (["data.name=ring"], ["data.name 'ring' is unknown"]),
    "conditional": (
        ["game.conditional=true"],
        ["'game.conditional'", "game.name=generation", "game.name is adaptation"],
    ),
    "method": (["game.method=dan"], ["'dan' is unknown; did you mean 'dann'"]),
    "adda, nothing pretrained": (["game.method=adda"], ["init.run=''", "game.method=source_only"]),
    "adda, no such run": (["game.method=adda", "init.run=nowhere"], ["nowhere", "neither a run nor an export"]),
    "adda, only a critic": (
        ["game.method=adda", "init.run=runs/moons", "init.parts=[critic]"],
        ["init.parts=['critic']", "game.method=source_only"],
    ),
    "best by the oracle": ([f"checkpoint.best={ORACLE}"], ["checkpoint.best", "source accuracy", "SND"]),
    "activation": (["model.activation=gelu"], ["model.activation 'gelu' is unknown", "relu"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_one_sentence_before_the_first_step(tmp_path, case):
    overrides, parts = WRONG[case]
    message = refusal(tmp_path, "update.rule=single_pass", *overrides)
    for part in parts:
        assert part in message


def test_a_gan_does_not_recognise(tmp_path):
    with pytest.raises(UserError, match=r"model\.name=dcgan does not play game\.name=adaptation; choose dense"):
        train.main(
            [str(ROOT / "configs/digits.yaml"), "game.name=adaptation", "data.name=moons", f"run.dir={tmp_path}"]
        )


def test_another_model_than_the_pretrained_one_is_refused(tmp_path, pretrained):
    message = refusal(tmp_path, *words("adda", pretrained), "model.width=9")
    assert str(pretrained) in message
    assert "has model.width=8 and must have 9" in message


@pytest.mark.parametrize("rule", ["simultaneous", "alternating"])
def test_a_critic_with_batch_norm_plays_the_other_rules(tmp_path, bare, rule):
    assert run(tmp_path, f"update.rule={rule}", "model.critic_norm=batch", "model.critic_depth=1") == 0


# --- sample.py and evaluate.py


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Runs on points and on images; that on points chose its best step among three."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(folder / "moons", "train.steps=6", "evaluate.every=2", "optimizer.generator_lr=0.3") == 0
    assert run(folder / "digits", "data.resolution=8", recipe="digit_patches") == 0
    return folder


def test_evaluation_prints_each_class_and_draws_the_confusion(finished, capsys):
    assert evaluate.main([str(finished / "moons/run")]) == 0
    output = capsys.readouterr().out
    lines = dict(line.split()[:2] for line in output.splitlines() if line.startswith("  "))
    accuracy = next(line.split()[3] for line in output.splitlines() if line.startswith(ORACLE))
    # 1,000 samples of each class, so the mean is the accuracy; each number is rounded to two digits
    assert sum(map(float, lines.values())) / 2 == pytest.approx(float(accuracy), abs=0.02)
    assert lines.keys() == {"upper", "lower"}
    path = output.splitlines()[-1].removeprefix("confusion: ")
    assert path.endswith("run/samples/confusion-step-00000006-ema.png")
    assert Image.open(path).mode == "RGB"


@pytest.mark.parametrize("name", ["moons", "digits"])
def test_evaluation_repeats_what_training_reported(finished, monkeypatch, capsys, name):
    """The probe critic, too: it begins from the same weights and sees the same minibatches."""
    monkeypatch.setattr("utils.evaluation.domain_critics.PROBE_STEPS", 200)  # as in the fixture's runs
    assert evaluate.main([str(finished / name / "run"), "--json"]) == 0
    again = {record["metric"]: record["value"] for record in map(json.loads, capsys.readouterr().out.splitlines())}
    before = {record["metric"]: record["value"] for record in records(finished / name, "metric")}
    assert again == before
    assert len(again) == 10


def test_the_best_step_can_be_drawn_and_measured(finished, capsys):
    """That with the highest BNM, the latest among equals; the weights are those of that step."""
    measured = [r for r in records(finished / "moons", "metric") if r["metric"] == "BNM"]
    best = max(measured, key=lambda record: (record["value"], record["step"]))
    oracle = {r["step"]: r["value"] for r in records(finished / "moons", "metric") if r["metric"] == ORACLE}
    assert evaluate.main([str(finished / "moons/run"), "--weights", "best", "--json"]) == 0
    found = {record["metric"]: record for record in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["BNM"]["step"] == best["step"]
    assert found["BNM"]["value"] == best["value"]
    assert found[ORACLE]["value"] == oracle[best["step"]]
    assert sample.main([str(finished / "moons/run"), "--weights", "best"]) == 0
    assert capsys.readouterr().out.strip().endswith(f"embedding-step-{best['step']:08d}-best-seed-0.png")


def test_points_are_drawn_as_their_embedding(finished, capsys):
    assert sample.main([str(finished / "moons/run")]) == 0
    (path,) = capsys.readouterr().out.split()
    assert path.endswith("run/samples/embedding-step-00000006-ema-seed-0.png")
    assert Image.open(path).size == (1350, 500)


def test_images_are_drawn_with_what_is_read_in_them_too(finished, tmp_path, capsys):
    out = tmp_path / "out.png"
    assert sample.main([str(finished / "digits/run"), "--count", "6", "--columns", "3", "--out", str(out)]) == 0
    embedding, predictions = map(Path, capsys.readouterr().out.split())
    assert (embedding.name, predictions.name) == ("out-embedding.png", "out-predictions.png")
    assert Image.open(embedding).size == (900, 500)
    assert Image.open(predictions).size == (300, 240)


@pytest.mark.parametrize("option", [["--class", "1"], ["--truncation", "0"], ["--interpolate", "2"], ["--seed", "0"]])
def test_options_of_generators_are_refused(finished, option):
    with pytest.raises(
        UserError, match=f"{option[0]} is for generators, and .*/run is of game.name=adaptation"
    ) as caught:
        sample.main([str(finished / "moons/run"), *option])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["--count", "--columns"])
def test_options_of_images_are_refused_for_points(finished, option):
    with pytest.raises(UserError, match=f"{option} is for images, and moons has none"):
        sample.main([str(finished / "moons/run"), option, "2"])


def test_a_seed_of_latents_is_refused_where_there_are_none(finished):
    with pytest.raises(UserError, match=r"--seed is of latents, and .*/run is of game.name=adaptation"):
        evaluate.main([str(finished / "moons/run"), "--seed", "1"])


def test_a_run_that_chose_nothing_has_no_best(finished, tmp_path):
    shutil.copytree(finished / "digits/run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/best")
    for command in (evaluate.main, sample.main):
        with pytest.raises(UserError, match=r"has no chosen model: .* evaluate\.every=1000 and checkpoint\.best=auto"):
            command([str(tmp_path / "run"), "--weights", "best"])
