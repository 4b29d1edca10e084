"""The same command again resumes, bit for bit."""

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy
import pytest
from PIL import Image

import evaluate
import sample
import train
from tests.launch import forked
from tests.runs import arguments, at_step, fingerprint, run, signal_at
from utils.errors import UserError
from utils.tasks.generation import Generation

# 12 steps of 8 samples from 24 images are four epochs: every stop below is in the middle of one.
VARIANTS = {
    "single_pass": [],
    "alternating": ["update.rule=alternating", "update.critic_steps=2", "optimizer.schedule=cosine_decay"],
    "reused fakes": ["update.rule=alternating", "update.reuse_fakes=true", "optimizer.warmup=6"],
    "BatchNorm": ["update.rule=simultaneous", "model.critic_norm=batch"],
    "spectral norm": ["model.critic_norm=spectral", "game.objective=hinge", "train.channels_last=false"],
    "R1 and R2": ["game.objective=relativistic", "penalty.r1=1", "penalty.r2=1", "penalty.schedule.r1=linear_decay"],
    "ADA": ["augment.name=ada", "augment.images=200", "augment.every=2", "augment.target=0"],
    "scheduled augmentation": ["augment.name=scheduled", "augment.schedule=linear_growth", "update.critic_steps=2"],
    "lazy": ["penalty.r1=1", "penalty.lecam=0.1", "penalty.consistency=1", "penalty.dragan=0.1"]
    + [f"penalty.every.{name}=4" for name in ("r1", "lecam", "consistency", "dragan")],
    "looking ahead": [
        "update.lookahead=1",
        "update.lookahead_schedule=cosine_decay",
        "update.generator_lookahead=0.5",
        "update.critic_steps=2",
        "penalty.clip=0.05",
        "penalty.r1=1",
        "penalty.every.r1=4",
    ],
    "AC-GAN": ["update.rule=simultaneous", "game.conditional=true", "game.auxiliary=1", "penalty.lecam=0.1"],
    "packs": ["game.pack=2", "game.objective=wasserstein", "penalty.clip=0.05", "augment.name=diffaugment"],
    "SGD": ["optimizer.name=sgd", "optimizer.weight_decay=0.01"],
    "momentum": ["optimizer.name=sgd", "optimizer.momentum=0.9", "update.warmup=8"],
    "conditional bf16": ["game.conditional=true", "train.precision=bf16", "update.lookahead=1"],
}


@pytest.fixture(autouse=True)
def _quick_probe(monkeypatch):
    """These tests look at what is reported of the probe critic, not at how good it is."""
    monkeypatch.setattr("utils.evaluation.domain_critics.PROBE_STEPS", 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a variant's run that nobody stopped, which is trained once."""

    @cache
    def trained(variant: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        assert run(folder, *VARIANTS[variant]) == 0
        return folder

    return trained


@pytest.mark.parametrize("stop", [0, 6, 10])
@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_at_any_step_and_resumed_gives_the_same_bits(tmp_path, monkeypatch, whole, variant, stop):
    overrides = VARIANTS[variant]
    with monkeypatch.context() as patch:
        signal_at(patch, stop)
        assert run(tmp_path, *overrides) == 75
    assert len(list((tmp_path / "digits/checkpoints").glob(f"step-{stop + 1:08d}"))) == 1
    assert run(tmp_path, *overrides) == 0
    assert fingerprint(tmp_path) == fingerprint(whole(variant))


WARM = {
    "start": ["init.freeze=[critic.features.0]", "optimizer.scale={critic.last: 10}", "train.steps=2"],
    "fork": ["init.fork=true", "optimizer.critic_lr=0.003", "augment.name=ada", "train.steps=4"],
}


@pytest.mark.parametrize("variant", WARM)
def test_a_run_that_began_with_another_one_resumes_without_it(tmp_path, monkeypatch, variant):
    """Stopped after the first of two steps."""
    monkeypatch.setattr(Generation, "evaluate", lambda *_: [])
    monkeypatch.setattr(Generation, "check_evaluation", lambda *_: None)
    assert run(tmp_path, "run.name=source", "train.steps=2") == 0
    overrides = [*WARM[variant], f"init.run={tmp_path}/source", "log.every=1"]
    assert run(tmp_path / "whole", *overrides) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 0)
        assert run(tmp_path / "parts", *overrides) == 75
    shutil.rmtree(tmp_path / "source")
    assert run(tmp_path / "parts", *overrides) == 0
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
    configs = [(tmp_path / part / "digits/config.yaml").read_text() for part in ("whole", "parts")]
    history = [[line for line in text.splitlines() if line.startswith("# History: ")] for text in configs]
    assert len(history[0]) == 1
    assert history[0] == history[1]


@pytest.fixture
def images(tmp_path):
    random = numpy.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "images" / str(i % 3) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=numpy.uint8)).save(path)
    return [f"data.root={tmp_path / 'images'}", "data.name=folder", "run.name=digits", "data.mirror=true"]


def test_streamed_images_resume_and_do_not_depend_on_workers(tmp_path, monkeypatch, images):
    """Decoded ahead or streamed, by 0 or 2 workers, stopped in the middle of an epoch or not: the same bits."""
    assert run(tmp_path / "resident", *images) == 0
    for workers in (0, 2):
        streamed = [*images, "data.resident_gib=0", f"data.workers={workers}"]
        folder = tmp_path / f"workers-{workers}"
        with monkeypatch.context() as patch:
            signal_at(patch, 4)
            assert run(folder, *streamed) == 75
        assert run(folder, *streamed) == 0
        assert fingerprint(folder) == fingerprint(tmp_path / "resident")


def test_killed_process_resumes_to_the_same_bits(tmp_path):
    """SIGKILL, twice, at moments that nobody chose; the metrics tell every step once."""
    overrides = ["train.steps=60", "checkpoint.every=7", "log.every=4"]
    overrides += ["update.lookahead=1", "update.generator_lookahead=1"]  # what they need is in the checkpoint
    assert run(tmp_path / "whole", *overrides) == 0
    checkpoints = tmp_path / "killed/digits/checkpoints"
    for kill in range(2):
        before = set(checkpoints.glob("step-*"))
        process = forked(tmp_path / "output.txt", train.main, arguments(tmp_path / "killed", *overrides))
        while process.is_alive() and not set(checkpoints.glob("step-*")) - before:
            time.sleep(0.005)
        process.kill()
        process.join()
        assert kill or process.exitcode == -signal.SIGKILL
    assert run(tmp_path / "killed", *overrides) == 0
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")

    lines = (tmp_path / "killed/digits/metrics.jsonl").read_text().splitlines()
    steps = [record["step"] for record in map(json.loads, lines) if record["kind"] == "train"]
    assert steps == list(range(4, 61, 4))


def test_damaged_checkpoint_is_named_and_the_one_before_resumes(tmp_path, capsys):
    assert run(tmp_path, "train.steps=10") == 0
    whole = fingerprint(tmp_path)
    (tmp_path / "digits/checkpoints/step-00000010/critic.safetensors").write_bytes(b"")
    assert run(tmp_path, "train.steps=10") == 0
    output = capsys.readouterr().out
    assert "step-00000010 is damaged" in output
    assert "Resumed from" in output
    assert fingerprint(tmp_path) == whole


def as_format_1(folder: Path, name: str) -> None:
    """Rewrite a run's states as they were before they had a format: all keys flat, no record of the best."""
    for path in (folder / name).glob("[bc]*/step-*"):  # best/ and checkpoints/
        state = json.loads((path / "state.json").read_text())
        sizes = state.pop("sizes")
        del sizes["aspect"]
        if name == "digits":
            del sizes["outputs"]
        del state["format"], state["best"], state["history"]
        text = json.dumps({**state, **sizes}, indent=1).encode()
        (path / "state.json").write_bytes(text)
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["state.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_a_run_of_the_first_format_goes_on(tmp_path, monkeypatch, name):
    """With its best model; every tool reads it, too."""
    words = ["evaluate.every=3"]
    assert run(tmp_path / "whole", *words, recipe=f"configs/{name}.yaml") == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 6)
        assert run(tmp_path / "parts", *words, recipe=f"configs/{name}.yaml") == 75
    as_format_1(tmp_path / "parts", name)
    for main in (sample.main, evaluate.main):
        assert main([str(tmp_path / "parts" / name)]) == 0
    assert run(tmp_path / "parts", *words, recipe=f"configs/{name}.yaml") == 0
    assert fingerprint(tmp_path / "parts", name) == fingerprint(tmp_path / "whole", name)
    best = [sorted(path.name for path in (tmp_path / part / name).glob("best/*")) for part in ("parts", "whole")]
    assert best[0] == best[1]
    assert best[0]


def test_killed_after_the_last_save_still_draws_and_evaluates_the_end(tmp_path, monkeypatch):
    """The last checkpoint is committed first; a run that dies before its last picture draws it on resumption."""
    with monkeypatch.context() as patch:
        patch.setattr("train.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    picture = tmp_path / "digits/samples/step-00000012.png"
    assert not picture.exists()
    assert run(tmp_path) == 0
    assert picture.exists()
    assert '"finished"' in (tmp_path / "digits/metrics.jsonl").read_text()


def test_a_stopped_run_may_be_called_finished_where_it_stands(tmp_path, monkeypatch, capsys):
    """Asked for fewer steps than are done, it ends with the checkpoint that there is."""
    with monkeypatch.context() as patch:
        signal_at(patch, 7)
        assert run(tmp_path) == 75
    assert run(tmp_path, "train.steps=5") == 0
    assert "Finished at step 8" in capsys.readouterr().out
    assert (tmp_path / "digits/checkpoints/step-00000008").is_dir()
    assert (tmp_path / "digits/samples/step-00000008.png").is_file()


def test_a_run_without_an_end_is_stopped_and_resumed(tmp_path, monkeypatch, capsys):
    """Every signal ends one part of it; the bits are those of a run that knew its end."""
    steady = "optimizer.schedule=constant"
    assert run(tmp_path / "whole", steady) == 0
    for stop in (4, 6):  # steps 1 to 5, and 6 to 12
        with monkeypatch.context() as patch:
            signal_at(patch, stop)
            assert run(tmp_path / "parts", steady, "train.steps=null") == 75
    assert "Stopped after step 12 by SIGTERM" in capsys.readouterr().out
    assert '"finished"' not in (tmp_path / "parts/digits/metrics.jsonl").read_text()
    assert fingerprint(tmp_path / "parts") == fingerprint(tmp_path / "whole")
    assert run(tmp_path / "parts", steady) == 0  # an end that is reached already


def test_finished_run_says_so_and_continues_when_asked(tmp_path, capsys):
    steady = "optimizer.schedule=constant"  # others stretch over the new number of steps
    assert run(tmp_path, steady) == 0
    before = fingerprint(tmp_path)
    capsys.readouterr()
    assert run(tmp_path, steady) == 0
    output = capsys.readouterr().out
    assert "is finished: 12 steps" in output
    assert "train.steps=24" in output
    assert fingerprint(tmp_path) == before

    assert run(tmp_path, steady, "train.steps=18") == 0
    assert run(tmp_path / "whole", steady, "train.steps=18") == 0
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "whole")


def test_a_run_stopped_before_an_evaluation_catches_up(tmp_path, monkeypatch):
    """A signal in the step that an evaluation and a picture were due after: the records are those of a whole run."""
    words = ["evaluate.every=3", "sample.every=3", "checkpoint.best=entropy", "train.steps=6"]
    assert run(tmp_path / "whole", *words, recipe="configs/moons.yaml") == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 2)
        assert run(tmp_path / "parts", *words, recipe="configs/moons.yaml") == 75
    assert run(tmp_path / "parts", *words, recipe="configs/moons.yaml") == 0

    def measured(folder):
        lines = (tmp_path / folder / "moons/metrics.jsonl").read_text().splitlines()
        return [(r["step"], r["metric"], r["value"]) for r in map(json.loads, lines) if r["kind"] == "metric"]

    def files(folder):
        return sorted(
            path.name for name in ("best", "samples") for path in (tmp_path / folder / "moons" / name).iterdir()
        )

    assert measured("parts") == measured("whole")
    assert {step for step, _, _ in measured("whole")} == {3, 6}
    assert files("parts") == files("whole")


def test_a_moved_run_goes_on_where_it_is(tmp_path, monkeypatch):
    """As the header of its config advises: the folder is the run, whatever its name was."""
    assert run(tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 6)
        assert run(tmp_path / "parts") == 75
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "parts/digits").rename(tmp_path / "elsewhere/moved")
    assert train.main([str(moved / "config.yaml")]) == 0
    assert fingerprint(tmp_path / "elsewhere", "moved") == fingerprint(tmp_path / "whole")
    assert not (tmp_path / "parts/digits").exists()


@pytest.mark.parametrize("left", ["nothing", "an-empty-folder"])
@pytest.mark.parametrize("ended", ["finished", "stopped"])
def test_a_run_without_its_checkpoints_does_not_start_over(tmp_path, monkeypatch, left, ended):
    """Moved away, or on a disk that is not mounted: neither records nor the best model are deleted."""
    words = ["evaluate.every=3", "checkpoint.every=2", "log.every=1"]
    with monkeypatch.context() as patch:
        if ended == "stopped":
            signal_at(patch, 8)
        run(tmp_path, *words, recipe="configs/moons.yaml")
    folder = tmp_path / "moons"
    (folder / "checkpoints").rename(tmp_path / "away")
    if left == "an-empty-folder":
        (folder / "checkpoints").mkdir()
    before = (folder / "metrics.jsonl").read_bytes(), sorted(folder.glob("best/*/*"))
    assert before[1]
    with pytest.raises(UserError, match=r"up to step (12|9) .*checkpoints holds no checkpoint") as caught:
        run(tmp_path, *words, recipe="configs/moons.yaml")
    assert "\n" not in str(caught.value)
    assert ((folder / "metrics.jsonl").read_bytes(), sorted(folder.glob("best/*/*"))) == before
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (tmp_path / "away").rename(folder / "checkpoints")
    assert run(tmp_path, *words, recipe="configs/moons.yaml") == 0


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(tmp_path, monkeypatch):
    """Nothing was lost: the same command again must do."""
    words = ["log.every=1", "evaluate.every=2", "checkpoint.every=6"]
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda players: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *words, recipe="configs/moons.yaml")
    assert list((tmp_path / "moons").glob("best/step-*"))
    assert run(tmp_path, *words, recipe="configs/moons.yaml") == 0


def test_other_data_of_the_same_number_are_refused(tmp_path, monkeypatch, images):
    with monkeypatch.context() as patch:
        signal_at(patch, 4)
        assert run(tmp_path / "runs", *images) == 75
    path = tmp_path / "images/0/0.png"
    before = path.read_bytes()
    Image.fromarray(numpy.zeros((8, 8, 3), dtype=numpy.uint8)).save(path)
    for more in ([], ["data.resident_gib=0"]):
        with pytest.raises(UserError, match=r"step-00000005 was trained on other samples .* as many: restore"):
            run(tmp_path / "runs", *images, *more)
    path.write_bytes(before)
    assert run(tmp_path / "runs", *images) == 0
