"""The README and the pages of docs/ name commands, keys, files and images that exist."""

import ast
import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import compare
import diagnose
import evaluate
import explain
import export
import project
import sample
import sweep
import train
from tests.runs import ROOT, loaded

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
OF_A_RUN = {
    "sample": sample,
    "diagnose": diagnose,
    "evaluate": evaluate,
    "explain": explain,
    "export": export,
    "project": project,
}
FILES = (".py", ".txt", ".md", ".safetensors", ".pt2", ".onnx")  # what is no key, though it looks like one
FOREIGN = ("pip", ".venv/bin/tensorboard")  # programs of others, whose options are theirs


def code_blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)\n```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words of every command in the page's bash blocks."""
    lines = "\n".join(code_blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def page_name(page: Path) -> str:
    return page.name


# --- commands --------------------------------------------------------------------------------------------------------


COMMANDS = [pytest.param(words, id=f"{page.name}: {' '.join(words)}") for page in PAGES for words in commands(page)]


def check_command(words: list[str], monkeypatch) -> None:
    """Raise what a reader would see who typed this; nothing is trained."""
    if words[0] in FOREIGN:
        return
    if "-m" in words:
        assert importlib.util.find_spec(words[words.index("-m") + 1]) is not None
        return
    scripts = [i for i, word in enumerate(words) if word.endswith((".py", ".sh"))]
    assert scripts, f"{words} runs no script"
    script, arguments = words[scripts[0]], words[scripts[0] + 1 :]
    assert (ROOT / script).is_file(), f"there is no {script}"
    if script in ("train.py", "scripts/slurm.sh"):  # the latter hands its arguments to the former
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(train, "train", lambda config: 0)
        monkeypatch.setattr(train, "rehearse", lambda config: 0)
        assert train.main(arguments) == 0
    elif script == "sweep.py":
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sweep, "perform", lambda rows, jobs: 0)
        assert sweep.main(arguments) == 0
    elif script == "compare.py":
        compare.parser().parse_args(arguments)
    elif script.removesuffix(".py") in OF_A_RUN:
        command = OF_A_RUN[script.removesuffix(".py")]
        options = command.parser().parse_intermixed_args(arguments)
        assert options.run.startswith("runs/")
    else:
        code = (ROOT / script).read_text()
        assert [word for word in arguments if word.startswith("--") and f'"{word}"' not in code] == []


def test_the_pages_have_commands():
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("words", COMMANDS)
def test_command_is_accepted(words, monkeypatch):
    check_command(words, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "./flip trian.py",
        "./flip train.py configs/rings.yaml",
        "./flip train.py update.rul=alternating",
        "./flip train.py configs/ring.yaml update.rule=both",
        "./flip train.py --show-config",
        "./flip sample.py runs/digits --rows 3",
        "./flip evaluate.py",
        "python benchmarks/faults.py --kill 3",
        "python -m docs.nothing",
        "./flop",
        "accelerate launch train.py configs/digits.yaml train.step=5",
        "sbatch --nodes=2 scripts/slurm.sh configs/digit.yaml",
        "./flip sweep.py configs/ring.yaml seed=0,1 update.rul=a,b",
    ],
)
def test_a_wrong_command_is_found(line, monkeypatch):
    with pytest.raises((Exception, SystemExit)):
        check_command(shlex.split(line), monkeypatch)


# --- keys ------------------------------------------------------------------------------------------------------------


@cache
def config_keys() -> set[str]:
    """Every "section.key" that some recipe's config has: model, game and data have different keys by their name."""
    keys = set()
    for recipe in RECIPES:
        config = loaded(recipe)
        for section in vars(config):
            if hasattr(getattr(config, section), "__dict__"):
                keys |= {f"{section}.{key}" for key in vars(getattr(config, section))}
    return keys


def named_keys(text: str) -> list[str]:
    """What is written as code and looks like section.key, with or without a value."""
    spans = re.findall(r"`([^`\n]+)`", text)
    words = [word.partition("=")[0] for span in spans for word in span.split()]
    found = [word for word in words if re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+", word)]
    sections = {key.partition(".")[0] for key in config_keys()}
    return [key for key in found if key.partition(".")[0] in sections and not key.endswith(FILES)]


def unknown_keys(text: str) -> list[str]:
    """Named keys that no config has; of a dictionary's entries (penalty.every.r1) the first two words count."""
    return [key for key in named_keys(text) if ".".join(key.split(".")[:2]) not in config_keys()]


def test_the_pages_name_keys():
    assert len({key for page in PAGES for key in named_keys(prose(page))}) > 40
    assert unknown_keys("`penalty.r1`, `penalty.every.r1=16`, `train.py`, `runs/x`") == []
    assert unknown_keys("`penalty.r9`, `game.packs=2`") == ["penalty.r9", "game.packs"]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_key_exists(page):
    assert unknown_keys(prose(page)) == []


# --- links and pictures ----------------------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    """The targets of links and pictures within the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in targets if not re.match(r"https?://", target)]


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pages_have_links():
    assert sum(len(links(page)) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_link_leads_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_picture_is_a_png_with_a_description(page):
    for description, target in re.findall(r"!\[(.*?)\]\((.*?)\)", prose(page)):
        assert len(description) > 10
        assert (page.parent / target).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", PAGES[1:], ids=page_name)
def test_the_readme_leads_to_every_page(page):
    assert f"docs/{page.name}" in [link.partition("#")[0] for link in links(PAGES[0])]


# --- code ------------------------------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(PAGES[0].read_text().splitlines()) < 150


def test_the_readme_shows_the_single_pass_of_docs_idea():
    """Its second block of code is the function, letter by letter."""
    source = (ROOT / "docs/idea.py").read_text()
    (function,) = [node for node in ast.parse(source).body if getattr(node, "name", "") == "single_pass"]
    blocks = re.findall(r"^```(\w+)\n(.*?)\n```$", PAGES[0].read_text(), re.MULTILINE | re.DOTALL)
    lines = source.splitlines()[function.lineno - 1 : function.end_lineno]  # with the comment at its very end
    assert blocks[1] == ("python", "\n".join(lines))


class Affine(nn.Module):
    """A network as a game calls it."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x, label=None):
        return self.layer(x).squeeze(1)


def test_the_rules_page_shows_a_loop_that_trains():
    """The block that uses the method as a package: its critic pushes the generator towards the data."""
    (block,) = code_blocks(ROOT / "docs/rules.md", "python")
    names = {}
    exec(block.replace("from flipside.", "from adversarial."), names)
    torch.manual_seed(0)
    G, D = Affine(3, 2), Affine(2, 1)
    before = G(torch.zeros(1, 3)).detach()
    names["train"](G, D, [torch.randn(16, 2) + 5 for _ in range(1000)], 3)
    assert (G(torch.zeros(1, 3)).detach() > before + 0.1).all()
