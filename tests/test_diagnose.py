"""``diagnose.py`` on small runs that have an illness, on healthy ones, and on folders that are no runs."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

import diagnose
import train
from tests.runs import ROOT, run
from utils import pictures
from utils.config import loading
from utils.errors import NotFiniteError, UserError
from utils.evaluation import domain_critics
from utils.evaluation.illnesses import Finding
from utils.evaluation.spaces import SPACES, Space
from utils.run.examination import command
from utils.run.folder import RunFolder

ONCE = ["run.device=cpu", "sample.every=0", "evaluate.samples=200", "checkpoint.every=1000"]
# Features that tell the moons apart easily, and three evaluations of 100 steps.
APART = [
    "model.width=64", "model.activation=relu", "model.critic_depth=2", "model.critic_width=64", "update.coefficient=1",
    "optimizer.generator_lr=0.005", "evaluate.every=100", "train.steps=300",
]  # fmt: skip
# Recipe, what makes it ill, and the verdict.
RUNS = {
    "critic wins": (
        "digits",
        ["game.objective=minimax", "penalty.r1=0", "optimizer.critic_lr=0.01", "optimizer.schedule=constant",
         "train.steps=130", "log.every=5", "model.generator_width=8", "model.critic_width=16"],
        "critic has won",
    ),
    "mode collapse": (
        "ring_gan",
        ["update.lookahead=0", "optimizer.generator_lr=0.008", "optimizer.critic_lr=0.008", "train.steps=600"],
        "generator has collapsed",
    ),
    "oscillation": (
        "ring",
        ["game.objective=wasserstein", "penalty.r1=0", "penalty.r2=0", "optimizer.schedule=constant",
         "train.steps=400", "log.every=20"],
        "oscillating",
    ),
    "dead domain critic": ("moons", [*APART, "optimizer.critic_lr=0"], "critic has learned nothing"),
    "the same, alive": ("moons", [*APART, "optimizer.critic_lr=0.01"], "done"),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "words", "verdict"), RUNS.values(), ids=RUNS)
def test_the_verdict_on_a_small_run(tmp_path, monkeypatch, capsys, recipe, words, verdict):
    monkeypatch.setattr(domain_critics, "PROBE_STEPS", 100)
    check_verdict(tmp_path, capsys, recipe, words, verdict)


# The game on 40 images, of which 20 are held out: a strong critic without R1.
FEW_IMAGES = [
    "data.name=folder", "data.validation=0.5", "model.latent_dim=8", "model.generator_width=16",
    "model.critic_width=32", "penalty.r1=0", "optimizer.generator_lr=0.004", "optimizer.critic_lr=0.004",
    "optimizer.betas=[0.0,0.99]", "optimizer.schedule=constant", "train.batch_size=16", "train.steps=500",
    "log.every=20", "evaluate.every=400", "evaluate.samples=40",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "verdict"), [([], "memorising"), (["augment.name=diffaugment"], "done")], ids=["plain", "augmented"]
)
def test_a_critic_learns_few_images_by_heart_unless_they_are_augmented(tmp_path, monkeypatch, capsys, words, verdict):
    def read(x):  # EfficientNet-Lite0 would take more time than the training
        coarse = torch.nn.functional.adaptive_avg_pool2d(x.float(), 2).flatten(1)
        return coarse, coarse.softmax(1)

    monkeypatch.setitem(SPACES, "lite0", lambda request: Space("coarse", "0", None, read, request.device))
    for i, image in enumerate(torch.tensor(load_digits().images[:40])):
        gray = (image / 16 * 255).to(torch.uint8).expand(3, -1, -1)
        pictures.save(gray, tmp_path / f"forty/{i}.png")
    check_verdict(tmp_path, capsys, "digits", [*FEW_IMAGES, f"data.root={tmp_path}/forty", *words], verdict)


def check_verdict(folder: Path, capsys, recipe: str, words: list[str], verdict: str) -> None:
    """Train and diagnose a recipe with these words: the verdict comes first, and what is to be tried can be."""
    words = [*ONCE, "evaluate.every=0", f"run.dir={folder}", "run.name=x", *words]
    assert train.main([f"{ROOT}/configs/{recipe}.yaml", *words]) == 0
    capsys.readouterr()
    assert diagnose.main([f"{folder}/x", "--records-only"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith(f": {verdict}")
    check_commands(out)


def check_commands(text: str) -> None:
    """What is to be tried is accepted by train.py, or is of another command."""
    commands = re.findall(r"^(?:Try|Next): python (\S+) (.*)$", text, re.MULTILINE)
    assert commands
    for script, rest in commands:
        assert (ROOT / script).is_file()
        if script == "train.py":
            file, *overrides = shlex.split(rest)
            loading.load(ROOT / file, overrides)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert run(folder) == 0
    return folder


@pytest.fixture
def tiny(once, tmp_path):
    """The folder of a finished run of 12 steps, three log lines and two pictures."""
    return shutil.copytree(once, tmp_path / "runs") / "digits"


def test_a_step_that_is_not_finite(tmp_path, capsys):
    with pytest.raises(NotFiniteError):
        run(tmp_path, "optimizer.generator_lr=1e30", "log.every=2", "train.precision=no")
    capsys.readouterr()
    assert diagnose.main([f"{tmp_path}/digits"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith(": not finite")
    assert "became NaN or infinite" in out
    check_commands(out)


def test_images_that_are_all_alike(tmp_path, capsys):
    for i in range(20):
        pictures.save(torch.full((3, 8, 8), 7, dtype=torch.uint8), tmp_path / f"photos/{i % 2}/{i}.png")
    words = ["run.name=x", "data.name=folder", f"data.root={tmp_path}/photos", "data.resolution=8", "train.steps=4"]
    assert run(tmp_path, *words) == 0
    capsys.readouterr()
    assert diagnose.main([f"{tmp_path}/x"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].endswith(": data problem")
    shutil.rmtree(tmp_path / "photos")
    assert diagnose.main([f"{tmp_path}/x"]) == 0
    assert "Data and checkpoint were not looked at:" in capsys.readouterr().out


def test_what_was_not_measured_is_measured(tiny, capsys):
    lines = (tiny / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tiny / "metrics.jsonl").write_text("".join(line for line in lines if '"metric"' not in line))
    assert diagnose.main([str(tiny)]) == 0
    assert re.search(r"^coverage +[\d.]", capsys.readouterr().out, re.MULTILINE)


def test_the_records_of_an_older_version(tiny, capsys):
    """Without the signs that it did not know: they are said to be unknown."""
    old = {"kind": "train", "step": 4, "critic_loss": 1.5, "real_score": 2.0, "fake_score": -1.0}
    (tiny / "metrics.jsonl").write_text(json.dumps(old) + "\n")
    assert diagnose.main([str(tiny), "--records-only"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines() if len(line.split()) == 3}
    assert rows["critic_loss"] == "1.5"
    assert rows["score_margin"] == "3"
    for sign in ("generator_gradient_cosine", "ratio_p50", "floored", "outside_networks"):
        assert rows[sign] == "unknown"


def test_more_workers_are_for_the_run_itself_where_there_are_any(tiny, tmp_path):
    """A resident set has none, and the next remedy is said."""
    (tmp_path / "config.yaml").write_text("data:\n  name: folder\n  root: photos\n")
    waits = Finding("waiting for data", "", ("data.workers=4", "penalty.r1=1"))
    assert command(RunFolder(tmp_path), waits) == f"python train.py {tmp_path}/config.yaml data.workers=4"
    assert command(RunFolder(tiny), waits).endswith("run.name=digits-2 penalty.r1=1")


@pytest.mark.parametrize("left", ["", "config.yaml"])
def test_what_is_no_run_or_has_no_log_lines(tiny, left):
    for path in tiny.iterdir():
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    wrong = "has no log lines yet: train until the first one, at step 4" if left else "is not the folder of a run"
    with pytest.raises(UserError, match=wrong):
        diagnose.main([str(tiny)])


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_report_loads_nothing(tiny):
    assert diagnose.main([str(tiny), "--records-only"]) == 0
    page = (tiny / "report.html").read_text()
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", page) == []
    assert not re.search(r"https?://|@import|url\(", page)
    grids = json.loads(re.search(r"const grids = (.*);$", page, re.MULTILINE)[1])
    assert [step for step, _ in grids] == [6, 12]
    for heading in ("Verdict", "Vital signs", "Curves", "Samples", "Metrics", "Config", "Environment"):
        assert f"<h2>{heading}</h2>" in page
    assert "Nearest recipe: digits." in page
    assert "train.batch_size: 64 -&gt; 8" in page
    assert "git commit" in page


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="there is no browser here")
def test_the_report_in_a_browser(tiny):
    """Its script has run: the slider stands at the last picture."""
    assert diagnose.main([str(tiny), "--records-only"]) == 0
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{tiny}/report.html"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert '<output id="step">12</output>' in shown
    assert re.search(r'<img id="grid"[^>]* src="data:image/png', shown)
