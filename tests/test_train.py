"""train.py from the command line: what it writes, and what it says of wrong input."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import train
from adversarial.penalties import CRITIC
from tests.launch import forked
from tests.no_waiting import WAITS, NoWaiting, WaitedError
from tests.runs import ROOT, SMALL, TINY, arguments, assert_close, at_step, fingerprint, networks, run
from utils.config import loading as config
from utils.errors import UserError
from utils.run.folder import RunFolder
from utils.run.recorder import Recorder
from utils.tasks import generation
from utils.training.players import Players

OWN_FEATURES = RunFolder.features  # in the other tests all runs share a folder


def test_run_folder_holds_everything(tmp_path):
    assert run(tmp_path, "evaluate.every=6", "game.conditional=true") == 0
    folder = tmp_path / "digits"
    assert {path.name for path in (folder / "samples").iterdir()} == {"step-00000006.png", "step-00000012.png"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step-00000010", "step-00000012"}
    assert Image.open(folder / "samples/step-00000012.png").size[0] > 90

    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kinds = {record["kind"] for record in records}
    assert kinds == {"train", "metric", "finished"}
    metric = next(record for record in records if record["kind"] == "metric")
    about = "value metric features features_sha256 reference split samples resizer seed step weights"
    assert set(about.split()) <= metric.keys()

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    tags = events.Tags()
    scalars = (
        "critic_loss generator_loss critic_gradient_norm generator_gradient_norm images_per_second outside_networks"
    )
    assert {f"train/{name}" for name in scalars.split()} <= set(tags["scalars"])
    assert "train/generator_learning_rate" in tags["scalars"]
    assert tags["histograms"] == ["scores/real", "scores/fake"]
    assert tags["images"] == ["samples"]
    assert "config/text_summary" in tags["tensors"]


def test_output_in_a_file_is_lines_and_ends_with_the_places(tmp_path):
    process = forked(tmp_path / "output.txt", train.main, arguments(tmp_path))
    process.join()
    assert process.exitcode == 0
    output = (tmp_path / "output.txt").read_bytes().decode()
    assert "\r" not in output
    assert "step 4/12" in output
    last = output.splitlines()[-1]
    for place in ("samples/", "log.txt", "checkpoints/step-00000012/"):
        assert f"{tmp_path}/digits/{place}" in last


def test_recipe_is_optional_and_print_config_only_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert train.main(["--print-config", "seed=7", f"run.dir={tmp_path}"]) == 0
    output = capsys.readouterr().out
    assert "seed: 7" in output
    assert "name: mnist_5k" in output
    assert not list(tmp_path.iterdir())


def test_the_default_recipe_trains_on_images_that_are_installed(tmp_path, monkeypatch, capsys):
    """Without a recipe, a folder of data or a network."""
    monkeypatch.chdir(ROOT)
    quick = [*TINY["dcgan"], *SMALL, "evaluate.reference_samples=100", "train.steps=2"]
    assert train.main([*quick, "run.device=cpu", f"run.dir={tmp_path}"]) == 0
    assert "rarest class" in capsys.readouterr().out
    assert (tmp_path / "mnist_5k/samples/step-00000002.png").is_file()


WRONG = {
    "batch-coupled critic": (
        ["model.critic_norm=batch"],
        ["single_pass", "simultaneous", "alternating", "model.critic_norm=none"],
    ),
    "resolution": (
        ["data.resolution=20", "data.fit=pad"],
        ["model.name=dcgan", "20x20", "8, 16, 28, 32, 64, 128 pixels"],
    ),
    "resolution of another family": (["model.name=resnet_gan"], ["32, 48, 64, 128 pixels", "(1, 8, 8)"]),
    "size of the data": (["data.resolution=16", "data.fit=exact"], ["8x8 pixels", "data.resolution=8"]),
    "no images": (["data.name=folder", "data.root=tests"], ["no image"]),
    "clipped spectral norm": (["penalty.clip=0.01", "model.critic_norm=spectral"], ["penalty.clip=0", "critic_norm"]),
    "network for points": (["data.name=ring", "sample.count=64"], ["dcgan"]),
    "norm": (["model.critic_norm=layer"], ["layer", "spectral"]),
    "augmentation": (["augment.name=adda"], ["adda", "diffaugment", "scheduled", "ada"]),
    "transform": (["augment.name=ada", "augment.policy=[bgc]"], ["augment.policy", "bgc", "geometry"]),
    "probability": (["augment.name=scheduled", "augment.p=1.5"], ["augment.p", "1.5", "at most 1"]),
    "overfitting without a boundary": (
        ["augment.name=ada", "game.objective=relativistic"],
        ["relativistic", "augment.name=scheduled"],
    ),
    "class loss in a single pass": (
        ["game.auxiliary=1", "game.conditional=true"],
        ["game.auxiliary", "update.rule=simultaneous", "update.rule=alternating"],
    ),
    "class loss without classes": (["game.auxiliary=1"], ["game.conditional=true"]),
    "packs of classes": (["game.pack=2", "game.conditional=true"], ["game.pack=2", "game.conditional=false"]),
    "packs that do not fill the batch": (["game.pack=3"], ["train.batch_size is 8", "multiple of game.pack=3"]),
    "path length": (["penalty.path=2"], ["penalty.path", "mapping network", "model.name=dcgan"]),
    "compiled penalty beside a class loss": (
        ["train.compile=true", "game.auxiliary=1", "game.conditional=true", "update.rule=simultaneous"],
        ["penalty.r1", "train.compile=false"],
    ),
    "compiled penalty of a batch-coupled critic": (
        ["train.compile=true", "model.critic_norm=batch", "update.rule=simultaneous"],
        ["penalty.r1", "BatchNorm", "train.compile=false"],
    ),
    "recipe": (["configs/ring.yaml"], ["One recipe"]),
    "override": (["update.rul=alternating"], ["update.rul", "rule"]),
}


WRONG_ELSEWHERE = {
    "augmented points": ("ring", ["augment.name=diffaugment"], ["diffaugment", "(2,)", "augment.name=none"]),
    "mirrored points": ("ring", ["penalty.consistency=1"], ["penalty.consistency=0", "(2,)"]),
    "class of a critic without features": (
        "ring",
        ["game.auxiliary=1", "game.conditional=true", "update.rule=simultaneous"],
        ["model.name=mlp", "no features"],
    ),
    "compiled penalty of domains": ("moons", ["train.compile=true", "penalty.r1=1"], ["penalty.r1", "train.compile"]),
    "clipped spectral norm of domains": (
        "moons",
        ["penalty.clip=0.01", "model.critic_norm=spectral"],
        ["penalty.clip=0", "critic_norm"],
    ),
    "packed domains": ("moons", ["game.pack=2"], ["'game.pack'", "game.name=generation", "game.name is adaptation"]),
    "LeCam on domains": ("moons", ["penalty.lecam=1"], ["penalty.lecam=1.0", "game.name=generation"]),
    "augmented domains": ("moons", ["augment.name=diffaugment"], ["game.name=generation", "augment.name=none"]),
}


@pytest.mark.parametrize("case", [*WRONG, *WRONG_ELSEWHERE])
def test_wrong_input_is_one_sentence_before_the_first_step(tmp_path, monkeypatch, case):
    monkeypatch.chdir(ROOT)
    recipe, overrides, words = WRONG_ELSEWHERE[case] if case in WRONG_ELSEWHERE else ("digits", *WRONG[case])
    with pytest.raises(UserError) as error:
        run(tmp_path, *overrides, recipe=f"configs/{recipe}.yaml")
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not list(tmp_path.glob("*/checkpoints/*"))


@pytest.mark.parametrize(
    ("labels", "more", "words"),
    [
        (None, [], ["game.conditional=true", "'zip' has none"]),
        ([0] * 4, ["game.auxiliary=1", "update.rule=alternating"], ["game.auxiliary", "has only one"]),
        ([1, 2, 3, 3], [], ["3 labels, up to 3", "should have 4", "label 0 is missing", "game.conditional=false"]),
        ([0, 1, 1, 999], [], ["3 labels, up to 999", "should have 1000", "label 2 is missing"]),
    ],
    ids=["none", "one class", "from one", "with a gap"],
)
def test_classes_that_do_not_match_the_data(tmp_path, labels, more, words):
    pairs = None if labels is None else [[f"{i}.png", label] for i, label in enumerate(labels)]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for i in range(4):
            content = io.BytesIO()
            Image.new("L", (8, 8), i).save(content, "png")
            archive.writestr(f"{i}.png", content.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": pairs}))
    data = ["data.name=zip", f"data.root={tmp_path}/set.zip", "data.resolution=8", "train.batch_size=4"]
    with pytest.raises(UserError) as error:
        run(tmp_path, *data, "game.conditional=true", *more)
    assert all(word in str(error.value) for word in words), error.value
    assert not list(tmp_path.glob("*/checkpoints/*"))


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    assert run(tmp_path) == 0
    before = fingerprint(tmp_path)
    words = r"update.rule: single_pass -> alternating.*run.name=digits-rule-alternating, which trains from"
    with pytest.raises(UserError, match=words):
        run(tmp_path, "update.rule=alternating")
    assert run(tmp_path, "log.every=3", "train.steps=13") == 0
    assert fingerprint(tmp_path, step=12) == before


def test_error_is_a_sentence_on_stderr_and_exit_code_2(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "seed=none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "seed" in done.stderr


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    """The generator's weights are poisoned in step 8: the checkpoint of step 5 stays, none follows."""

    def poison(players):
        with torch.no_grad():
            next(players.generator.parameters()).fill_(float("nan"))

    at_step(monkeypatch, 7, poison)
    with pytest.raises(UserError, match=r"critic_loss.* became NaN or infinite in step 9"):
        run(tmp_path)
    assert [path.name for path in (tmp_path / "digits/checkpoints").iterdir()] == ["step-00000005"]
    assert "Stopped: " in (tmp_path / "digits/log.txt").read_text()


def test_collapsed_critic_is_warned_of(tmp_path, capsys):
    assert run(tmp_path, "guard.score_gap=0") == 0
    assert "penalty.r1" in capsys.readouterr().out


def test_warm_up_of_the_coefficient(tmp_path):
    """λ rises linearly over update.warmup steps, in the log too; the learning rates have a separate warm-up."""
    overrides = ["update.warmup=16", "optimizer.schedule=constant", "optimizer.generator_lr=1e-3"]
    assert run(tmp_path, *overrides) == 0
    records = [json.loads(line) for line in (tmp_path / "digits/metrics.jsonl").read_text().splitlines()]
    told = [record for record in records if record["kind"] == "train"]
    assert [record["coefficient"] for record in told] == [0.25, 0.5, 0.75]
    assert {record["generator_learning_rate"] for record in told} == {1e-3}


def test_the_schedule_of_a_look_ahead_reaches_the_step(tmp_path):
    """The second of two steps is half way, and in the first nobody has moved yet: two steps ahead are one there."""
    ways = {"growing": ["2", "linear_growth"], "one": ["1", "constant"], "two": ["2", "constant"]}
    for name, (alpha, schedule) in ways.items():
        words = [f"update.lookahead={alpha}", f"update.lookahead_schedule={schedule}"]
        assert run(tmp_path / name, "train.steps=2", *words, recipe="configs/ring.yaml") == 0
    found = {name: networks(tmp_path / name, 2, "ring") for name in ways}
    assert_close(found["growing"], found["one"], 0.0)
    with pytest.raises(AssertionError):
        assert_close(found["two"], found["one"], 0.0)


@pytest.mark.parametrize(
    "words",
    [["update.rule=alternating"], ["update.rule=alternating", "update.reuse_fakes=true"], ["update.rule=simultaneous"],
     [], ["update.lookahead=2"]],
    ids=" ".join,
)  # fmt: skip
def test_the_critics_weights_are_clipped_after_each_of_its_steps(tmp_path, monkeypatch, words):
    """Before the generator moves, and where the players look ahead; the optimisers move far."""
    seen, forward, update_state = [], train.turns, Players.update_state

    def farthest(weights):
        return max(weight.abs().max().item() for weight in weights)

    def watched_turns(cfg, game, batches, strengths):
        for turn in forward(cfg, game, batches, strengths):
            yield turn
            seen.append(farthest(game.critic.parameters()))  # of the next turn, which may be played ahead

    def watched_update(players, step, turn):
        assert CRITIC not in turn.players or farthest(players.critic.parameters()) == pytest.approx(0.01)
        update_state(players, step, turn)

    monkeypatch.setattr(train, "turns", watched_turns)
    monkeypatch.setattr(Players, "update_state", watched_update)
    far = ["optimizer.critic_lr=0.5", "optimizer.generator_lr=0.5", "penalty.clip=0.01", "update.critic_steps=2"]
    assert run(tmp_path, "train.steps=3", *far, *words, recipe="configs/ring.yaml") == 0
    assert seen == pytest.approx([0.01] * len(seen))
    assert len(seen) == (9 if "update.rule=alternating" in words else 6)
    moved = {name: x for name, x in networks(tmp_path, 3, "ring").items() if name.startswith("generator/")}
    assert farthest(moved.values()) > 0.1


def test_a_metric_that_cannot_choose_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint\.best=FID .* valid are: .*reverse KL") as error:
        run(tmp_path, "checkpoint.best=FID", recipe="configs/ring.yaml")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_best_model_is_kept_and_measured_again(tmp_path, capsys):
    """The folder best/ holds the step whose record is best, and evaluate.py finds there what the record says."""
    quick = ["model.width=32", "optimizer.generator_lr=0.01", "optimizer.critic_lr=0.01"]  # some samples near a mode
    measure = ["checkpoint.best=reverse KL", "evaluate.every=2", "evaluate.samples=2000"]
    assert run(tmp_path, *quick, *measure, recipe="configs/ring.yaml") == 0
    folder = tmp_path / "ring"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = {r["step"]: r["value"] for r in records if r.get("metric") == "reverse KL" and r["value"] is not None}
    assert len(set(measured.values())) > 1  # there is something to choose from
    best = min(measured, key=lambda step: (measured[step], -step))
    assert [path.name for path in (folder / "best").iterdir()] == [f"step-{best:08d}"]

    capsys.readouterr()
    assert evaluate.main([str(folder), "--weights", "best", "--json"]) == 0
    again = {r["metric"]: r for r in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (again["reverse KL"]["step"], again["reverse KL"]["value"]) == (best, measured[best])


def test_a_metric_that_the_data_cannot_give_is_refused_at_the_start(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint\.best=modes cannot be measured on data set 'digits' .* Fréchet"):
        run(tmp_path, "checkpoint.best=Modes")
    assert not (tmp_path / "digits/checkpoints").exists()


def test_the_best_images_are_kept_by_the_frechet_distance(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(RunFolder, "features", OWN_FEATURES)
    assert run(tmp_path, "checkpoint.best=frechet distance", "evaluate.every=6") == 0
    assert re.search("^best.* Fréchet distance", capsys.readouterr().out, re.MULTILINE)
    (best,) = (tmp_path / "digits/best").iterdir()
    assert evaluate.main([str(tmp_path / "digits"), "--weights", "best"]) == 0
    assert f"neighbours: {tmp_path}/digits/samples/neighbours-{best.name}-best.png" in capsys.readouterr().out
    assert {path.name.partition("-")[0] for path in (tmp_path / ".features").iterdir()} == {"classifier", "features"}


def test_compiled_networks_keep_their_names(tmp_path, monkeypatch):
    """The switch compiles both networks in place; a backend without code generation spares the test a minute."""
    compiled_modules = []

    def compile_quickly(module):
        compiled_modules.append(type(module).__name__)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_quickly)
    assert run(tmp_path, "train.compile=true", "train.steps=2", "penalty.r1=0") == 0
    assert run(tmp_path / "plain", "train.steps=2", "penalty.r1=0") == 0
    compiled = tmp_path / "digits/checkpoints/step-00000002"
    plain = tmp_path / "plain/digits/checkpoints/step-00000002"
    assert compiled_modules == ["Generator", "Critic"]
    for name in ("generator", "critic", "generator_ema"):
        assert load_file(compiled / f"{name}.safetensors").keys() == load_file(plain / f"{name}.safetensors").keys()


def test_a_critic_that_cannot_be_compiled_with_its_slope_is_named(tmp_path, monkeypatch):
    def fail(function, **options):
        def compiled(*arguments):
            raise torch._dynamo.exc.Unsupported("no such op.\nA stack trace")

        return compiled

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: None)
    with pytest.raises(UserError, match=r"penalty\.r1 .* model\.name=dcgan \(no such op\); use train") as error:
        run(tmp_path, "train.compile=true", "penalty.r1=1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rule", ["single_pass", "alternating"])
def test_compiled_penalised_run_follows_the_plain_one(tmp_path, monkeypatch, rule):
    """Six steps with a large ε of Adam's: rounding stays rounding."""
    torch._dynamo.reset()  # it counts how often a function is compiled
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, backend="aot_eager", **options))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: None)
    same = ["train.steps=6", "optimizer.eps=1e-3", f"update.rule={rule}", "game.objective=relativistic"]
    same += ["model.critic_norm=spectral", "penalty.r1=1", "penalty.r2=1", "penalty.every={r1: 2, r2: 2}"]
    for name in ("true", "false"):
        assert run(tmp_path / name, *same, f"train.compile={name}") == 0
    assert_close(*(networks(tmp_path / name, 6) for name in ("true", "false")), 1e-7)


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs g++")
def test_the_default_backend_compiles_penalties(tmp_path):
    """Points, whose networks are compiled in seconds. Rounding of float64 in three steps."""
    torch._dynamo.reset()
    same = ["train.steps=3", "train.precision=float64", "update.lookahead=1", "update.generator_lookahead=1"]
    for name in ("true", "false"):
        assert run(tmp_path / name, *same, f"train.compile={name}", recipe="configs/ring.yaml") == 0
    assert_close(*(networks(tmp_path / name, 3, "ring") for name in ("true", "false")), 1e-9)


HOT_PATHS = {
    "single pass": [
        "game.objective=hinge", "penalty.r1=1", "augment.name=ada", "penalty.lecam=0.1", "penalty.consistency=1",
        "penalty.clip=1", "game.pack=2", "update.lookahead=1", "update.generator_lookahead=1",
    ],
    "alternating": [
        "update.rule=alternating", "update.critic_steps=2", "penalty.gp=1", "penalty.dragan=1", "train.accumulate=2",
        "augment.name=diffaugment", "data.mirror=true",
    ],
    "class loss": ["update.rule=simultaneous", "game.conditional=true", "game.auxiliary=1", "optimizer.name=sgd"],
}  # fmt: skip


@pytest.fixture
def watched(monkeypatch):
    """The indices of steps that a run does while nothing may wait for the device: from the beginning of the first step
    to the first line of the log, batches included.
    """
    steps, train_step, write = [], train.train_step, Recorder.write
    with contextlib.ExitStack() as watch:

        def watched_step(*given):
            if not steps:
                watch.enter_context(NoWaiting())
            steps.append(given[-1])
            train_step(*given)

        def unwatched_write(recorder, done):
            watch.close()
            write(recorder, done)

        monkeypatch.setattr(train, "train_step", watched_step)
        monkeypatch.setattr(Recorder, "write", unwatched_write)
        yield steps


RARE = ["train.steps=6", "log.every=6", "sample.every=0", "checkpoint.every=100"]


@pytest.mark.parametrize("path", HOT_PATHS)
def test_hot_path_never_waits_for_the_device(tmp_path, watched, path):
    assert run(tmp_path, *RARE, *HOT_PATHS[path]) == 0
    assert watched == list(range(6))


@pytest.mark.parametrize("recipe", ["ring", "moons"])
def test_hot_path_of_points_never_waits_for_the_device(tmp_path, watched, recipe):
    assert run(tmp_path, *RARE, "evaluate.every=0", recipe=f"configs/{recipe}.yaml") == 0
    assert watched == list(range(6))


@pytest.mark.parametrize("name", WAITS)
def test_a_turn_that_waits_for_the_device_would_be_caught(tmp_path, monkeypatch, watched, name):
    original, planted = train.turns, []

    def turns(*given):
        for turn in original(*given):
            planted.append(turn.report["penalty"].shape)
            WAITS[name](turn.report["penalty"])
            yield turn

    monkeypatch.setattr(train, "turns", turns)
    with pytest.raises(WaitedError):
        run(tmp_path, *RARE, recipe="configs/ring.yaml")
    assert (planted, watched) == ([()], [0])


def test_help_names_the_way_to_all_keys(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    assert "--print-config" in capsys.readouterr().out


def test_bits_that_cannot_be_kept_on_a_gpu_are_refused():
    """Before the first step; on CPUs the same augmentation is deterministic."""
    cfg = config.load(ROOT / "configs/digits.yaml", ["run.deterministic=true", "augment.name=ada"])
    generation._check_deterministic(cfg, torch.device("cpu"))
    with pytest.raises(UserError, match="no deterministic form on GPUs"):
        generation._check_deterministic(cfg, torch.device("cuda"))
