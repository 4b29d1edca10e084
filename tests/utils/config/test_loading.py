"""How files, bases and overrides become a config, and what cannot be read."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from models import FAMILIES
from tests.runs import loaded
from tests.utils.config.configs import PLAYS, RECIPES, ROOT, SECTIONS, keys_of, refusal, value_of
from utils.config.loading import load, load_run
from utils.config.reading import is_override
from utils.config.sections import GAMES, Config
from utils.config.text import to_yaml
from utils.data.datasets import DATASETS
from utils.errors import UserError

# --- Bases and overrides


def test_an_empty_recipe_is_the_defaults_under_its_own_name(empty):
    want = Config()
    want.run.name = "empty"
    assert load(empty, []) == want


def test_a_file_of_comments_is_an_empty_recipe(write):
    assert load(write("# nothing yet\n"), []).seed == 0


def test_later_files_and_then_overrides_win(write):
    write("seed: 1\nlog: {every: 1}\nsample: {every: 1}\nevaluate: {every: 1}\n", "a.yaml")
    write("base: a.yaml\nseed: 2\nlog: {every: 2}\nsample: {every: 2}\n", "b.yaml")
    config = load(write("base: b.yaml\nseed: 3\nlog: {every: 3}\n", "c.yaml"), ["seed=4", "seed=5"])
    assert (config.seed, config.log.every, config.sample.every, config.evaluate.every) == (5, 3, 2, 1)
    assert config.run.name == "c"


def test_paces_of_penalties_are_inherited_one_by_one(write):
    write("penalty: {r1: 1, path: 1, gp: 1, every: {r1: 16, path: 4}}\n", "a.yaml")
    config = load(write("base: a.yaml\npenalty: {every: {r1: 8}}\n"), ["penalty.every.gp=2"])
    assert config.penalty.every == {"r1": 8, "path": 4, "gp": 2}


def test_a_base_is_relative_to_the_file_that_names_it(write, monkeypatch, tmp_path):
    write("seed: 7\n", "family/common/base.yaml")
    write("base: common/base.yaml\n", "family/middle.yaml")
    path = write("base: ../family/middle.yaml\n", "mine/recipe.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(path, []).seed == 7


def test_an_absolute_base(write):
    base = write("seed: 7\n", "far/base.yaml")
    assert load(write(f"base: {base}\n"), []).seed == 7


def test_two_files_may_share_a_base_through_different_chains(write):
    write("seed: 7\n", "base.yaml")
    write("base: base.yaml\n", "middle.yaml")
    assert load(write("base: middle.yaml\n"), []).seed == 7


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_of_bases_is_refused(write, length):
    for i in range(length):
        path = write(f"base: file{(i + 1) % length}.yaml\n", f"file{i}.yaml")
    assert "circle" in refusal(path)


def test_a_missing_base_is_named_with_its_neighbours(write):
    write("seed: 1\n", "common.yaml")
    text = refusal(write("base: comon.yaml\n"))
    assert "comon.yaml" in text
    assert "did you mean" in text
    assert "common.yaml'" in text


def test_a_missing_recipe_is_named_with_its_neighbours(write, tmp_path):
    write("", "digits.yaml")
    assert f"did you mean '{tmp_path}/digits.yaml'" in refusal(tmp_path / "digit.yaml")


def test_a_missing_recipe_in_a_folder_without_any_names_those_of_the_house(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "configs/digits.yaml" in refusal(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("train.steps=10_000", "train.steps", 10_000),
        ("optimizer.critic_lr=1e-4", "optimizer.critic_lr", 1e-4),
        ("optimizer.critic_lr=1", "optimizer.critic_lr", 1.0),
        ("optimizer.betas=[0.0,0.9]", "optimizer.betas", [0.0, 0.9]),
        ("game.conditional=true", "game.conditional", True),
        ("run.dir=/a/b c", "run.dir", "/a/b c"),
        ("run.dir=a=b", "run.dir", "a=b"),
        ("run.name=a-b_c.1", "run.name", "a-b_c.1"),
        ("run.name=é", "run.name", "é"),
        ("penalty.every.r1=16", "penalty.every", {"r1": 16}),
        ("penalty.every={r1: 16, path: 4}", "penalty.every", {"r1": 16, "path": 4}),
        ("penalty.schedule.gp=linear_decay", "penalty.schedule", {"gp": "linear_decay"}),
        ("run.name=007", "run.name", "007"),
        ("run.name=1.10", "run.name", "1.10"),  # not 1.1, which is another run
        ("run.name=2e-4", "run.name", "2e-4"),
        ("run.name=on", "run.name", "on"),
        ("run.name=1:30", "run.name", "1:30"),
        ("run.name=2024-01-31", "run.name", "2024-01-31"),  # to YAML 1.1 a date
        ("update.rule=alternating", "update.rule", "alternating"),
        ("model.generator_norm=none", "model.generator_norm", "none"),
        ("train.precision=bf16", "train.precision", "bf16"),
        ("train.precision=no", "train.precision", "no"),  # to YAML 1.1 a bare no is false
    ],
    ids=lambda x: x if isinstance(x, str) else repr(x),
)
def test_an_override(empty, override, key, value):
    got = value_of(load(empty, ["penalty.r1=1", "penalty.path=1", "penalty.gp=1", override]), key)
    assert got == value
    assert type(got) is type(value)


def test_precision_no_in_a_file(write):
    """The default's own spelling, as the comment of the field gives it."""
    assert load(write("train:\n  precision: no\n"), []).train.precision == "no"


@pytest.mark.parametrize("source", ["file", "override"])
def test_integer_betas_come_out_as_floats(write, empty, source):
    config = (
        load(write("optimizer: {betas: [0, 0]}\n"), []) if source == "file" else load(empty, ["optimizer.betas=[0,0]"])
    )
    assert [type(beta) for beta in config.optimizer.betas] == [float, float]


def test_a_number_that_yaml_takes_for_text_becomes_a_float(write):
    """To YAML 1.1, 2e-4 without a dot is a string."""
    assert load(write("optimizer: {critic_lr: 2e-4}\n"), []).optimizer.critic_lr == 2e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_section_has_the_fields_of_its_family(empty, family):
    config = load(empty, [f"model.name={family}", *PLAYS.get(family, [])])
    assert type(config.model) is FAMILIES[family].config
    assert config.model.name == family


@pytest.mark.parametrize("game", GAMES)
def test_the_game_section_has_the_fields_of_its_game(empty, game):
    domains = ["model.name=lenet", "data.name=digit_cameras", "game.objective=minimax"]
    config = load(empty, [f"game.name={game}", *(domains if game != "generation" else [])])
    assert type(config.game) is GAMES[game]
    assert config.game.name == game


def test_loading_leaves_the_schema_alone(empty):
    load(empty, ["optimizer.betas=[0,0]", "seed=9"])
    assert load(empty, []).optimizer.betas == [0.5, 0.999]


# --- What cannot be read. The words are what the sentence must contain: the key, and the valid names.

REFUSED = {
    "unknown-section": (["optimiser.eps=1"], ["'optimiser'", "did you mean 'optimizer'", "the command line"]),
    "unknown-key": (["train.step=1"], ["'train.step'", "did you mean 'steps'", "batch_size"]),
    "unknown-key-of-the-optimizer": (["optimizer.learning_rate=1"], ["'optimizer.learning_rate'", "generator_lr"]),
    "unknown-key-of-the-model": (["model.width=1"], ["'model.width'", "generator_width", "critic_width"]),
    "key-of-another-model": (
        ["model.name=mlp", "model.critic_norm=batch"],
        ["'model.critic_norm'", "model.name=dcgan or", "model.name is mlp", "width", "depth"],
    ),
    "unknown-key-of-the-data": (["data.size=1"], ["'data.size'", "resolution"]),
    "base-as-an-override": (["base=digits.yaml"], ["'base'"]),
    "empty-key": (["update.=1"], ["'update.'"]),
    "unknown-model": (["model.name=dcgn"], ["model.name", "did you mean 'dcgan'", *FAMILIES]),
    "text-for-an-integer": (["train.steps=many"], ["train.steps", "many"]),
    "seed-none": (["seed=none"], ["seed", "none"]),
    "null-seed": (["seed=null"], ["seed"]),
    "no-value": (["seed="], ["seed"]),
    "fraction-for-an-integer": (["train.steps=1.5"], ["train.steps", "1.5"]),
    "truth-for-an-integer": (["train.steps=true"], ["train.steps"]),
    "list-for-an-integer": (["train.steps=[1]"], ["train.steps"]),
    "section-for-an-integer": (["seed.x=1"], ["seed"]),
    "text-for-a-number": (["penalty.r1=strong"], ["penalty.r1", "strong"]),
    "text-for-a-truth": (["train.compile=maybe"], ["train.compile", "maybe"]),
    "null-text": (["update.rule=null"], ["update.rule"]),
    "section-for-text": (["run.name.x=1"], ["run.name"]),
    "number-for-a-list": (["optimizer.betas=0.5"], ["optimizer.betas"]),
    "section-for-a-list": (["optimizer.betas.0=0.5"], ["optimizer.betas"]),
    "null-list": (["optimizer.betas=null"], ["optimizer.betas"]),
    "null-in-a-list": (["optimizer.betas=[0.5,null]"], ["optimizer.betas"]),
    "text-in-a-list": (["optimizer.betas=[0.5,big]"], ["optimizer.betas", "big"]),
    "list-in-a-list": (["optimizer.betas=[0.5,[0.9]]"], ["optimizer.betas"]),
    "scalar-for-a-section": (["train=5"], ["'train'", "section"]),
    "null-for-a-section": (["train=null"], ["'train'", "section"]),
    "list-for-a-section": (["train=[1]"], ["'train'", "section"]),
    "name-for-the-model": (["model=mlp"], ["model", *FAMILIES]),
    "list-for-the-model": (["model=[mlp]"], ["model", *FAMILIES]),
    "null-for-the-model": (["model=null"], ["model", *FAMILIES]),
    "null-name-of-the-model": (["model.name=null"], ["model.name", *FAMILIES]),
    "name-for-the-game": (["game=adaptation"], ["'game'", "section", *GAMES]),
    "list-for-the-data": (["data=[mnist]"], ["'data'", "section", "mnist", "digits"]),
    "unknown-game": (["game.name=generaton"], ["game.name", "did you mean 'generation'", *GAMES]),
    "unknown-data": (["data.name=digit"], ["data.name", "did you mean 'digits'", *DATASETS]),
    "data-of-another-game": (["data.name=vectors"], ["data.name 'vectors' is unknown", *DATASETS]),
    "line-break-in-the-data": (['data.name="a\\nb"'], ["data.name"]),
    "line-break-in-the-game": (['game.name="a\\nb"'], ["game.name"]),
    "key-of-another-game": (
        ["game.method=cdan"],
        ["'game.method'", "game.name=adaptation or invariance", "game.name is generation", "conditional"],
    ),
    "keys-of-generation": (
        ["game.pack=2", "game.name=adaptation", "data.name=moons", "model.name=dense"],
        ["'game.pack'", "the command line", "a key of game.name=generation,", "game.name is adaptation", "margin"],
    ),
    "no-equals-sign": (["update.rule"], ["'update.rule'", "key=value"]),
    "no-key": (["=3"], ["'=3'", "key=value"]),
    "a-flag": (["--seed=3"], ["'--seed=3'", "key=value"]),
    "spaces-around-the-sign": (["seed = 3"], ["'seed = 3'", "key=value"]),
    "open-bracket": (["optimizer.betas=[0.5,"], ["optimizer.betas=[0.5,"]),
    "open-reference": (["run.name=${"], ["run.name"]),
    "reference-to-nothing": (["run.name=${nothing}"], ["run.name", "nothing"]),
    "reference-of-the-model-to-nothing": (["model.name=${oc.env:FLIPSIDE_NO_SUCH}"], ["FLIPSIDE_NO_SUCH"]),
    "reference-to-itself": (["seed=${seed}"], ["seed"]),
    "line-break-in-a-name": (['update.rule="a\\nb"'], ["update.rule"]),
    "line-break-in-place-of-a-section": (['train="a\\nb"'], ["'train'"]),
    "line-break-without-a-key": (["a\nb"], ["key=value"]),
    "one-pace-of-all-penalties": (["penalty.every=16"], ["penalty.every", "each penalty", "penalty.every.r1"]),
    "one-schedule-of-all-penalties": (["penalty.schedule=linear_decay"], ["penalty.schedule", "penalty.schedule.r1"]),
    "pace-that-is-no-number": (["penalty.every.r1=often"], ["penalty.every", "often"]),
    "null-pace": (["penalty.every.r1=null"], ["penalty.every"]),
    "null-paces": (["penalty.every=null"], ["penalty.every"]),
}


@pytest.mark.parametrize(("overrides", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_overrides(empty, overrides, words):
    text = refusal(empty, *overrides)
    assert [word for word in words if word not in text] == []


FILES = {
    "broken": ("seed: [1\n", ["not valid YAML"]),
    "tab": ("train:\n\tsteps: 1\n", ["not valid YAML"]),
    "unknown-alias": ("seed: *nothing\n", ["not valid YAML"]),
    "python-object": ("seed: !!python/object/apply:os.getpid []\n", ["not valid YAML"]),
    "two-documents": ("seed: 1\n---\nseed: 2\n", ["not valid YAML"]),
    "date": ("seed: 2020-01-01\n", ["seed"]),
    "list": ("- seed\n- 1\n", ["key: value"]),
    "text": ("seed\n", []),
    "number": ("5\n", []),
    "unknown-key": ("sed: 1\n", ["'sed'", "did you mean 'seed'"]),
    "unknown-key-in-a-section": ("train:\n  step: 1\n", ["'train.step'", "did you mean 'steps'"]),
    "number-as-a-key": ("train:\n  1: 2\n", ["'train.1'"]),
    "null-as-a-key": ("null: 1\n", []),
    "scalar-for-a-section": ("train: 5\n", ["'train'", "section"]),
    "empty-section": ("train:\n", ["'train'", "section"]),
    "list-for-a-section": ("train: [1]\n", ["'train'", "section"]),
    "section-for-a-list": ("optimizer:\n  betas: {a: 1}\n", ["optimizer.betas"]),
    "text-for-an-integer": ("train:\n  steps: many\n", ["train.steps", "many"]),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_refused_files(write, content, words):
    text = refusal(write(content))
    assert [word for word in ["recipe.yaml", *words] if word not in text] == []


@pytest.mark.parametrize("base", [".", "[a.yaml]", "{a: b}", "5", "a.yml"])
def test_a_base_that_is_no_file(write, base):
    refusal(write(f"base: {base}\n"))


def test_a_list_for_the_model_in_a_file(write):
    assert "dcgan" in refusal(write("model: [dcgan]\n"))


def test_a_list_over_the_model_of_a_base(write):
    write("model: {name: dcgan}\n", "base.yaml")
    assert "model" in refusal(write("base: base.yaml\nmodel: [dcgan]\n"))


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00seed")
    assert "recipe.yaml" in refusal(tmp_path / "recipe.yaml")


def test_a_mistake_in_a_base_is_blamed_on_the_base(write):
    write("sed: 1\n", "base.yaml")
    text = refusal(write("base: base.yaml\n"))
    assert "base.yaml" in text
    assert "recipe.yaml" not in text


def test_files_that_disagree_about_what_a_key_is(write):
    """A list in the base and a section in the recipe: neither can be merged into the other."""
    write("optimizer: {betas: [0.5, 0.9]}\n", "base.yaml")
    assert "optimizer.betas" in refusal(write("base: base.yaml\noptimizer: {betas: {first: 0.5}}\n"))


KEYS = keys_of(Config())
WORDS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=8)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([*KEYS, *SECTIONS]) | WORDS, WORDS), min_size=1, max_size=2))
@example([("optimizer.betas", "{}")])
@example([("update", "{}")])
@example([("model", "{name: mlp}")])
def test_any_override_is_taken_or_refused_in_one_sentence(empty, pairs):
    said = ""
    try:
        load(empty, [f"{key}={value}" for key, value in pairs])
    except UserError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize("word", ["seed=3", "update.rule=alternating", "data.root=a=b", "seed="])
def test_a_word_with_a_key_is_an_override(word):
    assert is_override(word)


@pytest.mark.parametrize("word", ["configs/a.yaml", "runs/lr=0.1/config.yaml", "./a=b.yaml", "seed", "=3", ""])
def test_a_path_is_no_override(word):
    assert not is_override(word)


def test_loading_a_config_draws_nothing(empty):
    before = torch.random.get_rng_state()
    load(empty, [])
    assert torch.equal(before, torch.random.get_rng_state())


# --- Folders of runs


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_run_loads_its_own_config(recipe, tmp_path):
    config = loaded(recipe)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_run(tmp_path, []) == config


def test_a_run_can_be_read_with_another_place_of_its_data(empty, tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(load(empty, ["data.name=mnist"])))
    assert load_run(tmp_path, ["data.root=elsewhere"]).data.root == "elsewhere"


def test_a_folder_without_a_config_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml") as caught:
        load_run(tmp_path, [])
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", ["log.txt", "metrics.jsonl", "checkpoints/step-00000001/x", "best/x"])
def test_the_config_in_a_runs_folder_means_that_folder(write, tmp_path, monkeypatch, content):
    """However it is named there: such is a folder that was moved or renamed."""
    path = write("run: {name: r1, dir: /far}\n", "runs/moved/config.yaml")
    assert load(path, []).run.name == "r1"  # as long as it is a config like any other
    write("", f"runs/moved/{content}")
    monkeypatch.chdir(tmp_path)
    for place in (path, Path("runs/moved/config.yaml")):
        run = load(place, []).run
        assert (run.name, run.dir) == ("moved", str(place.parent.parent))
    monkeypatch.chdir(tmp_path / "runs/moved")
    run = load(Path("config.yaml"), []).run
    assert (run.name, run.dir) == ("moved", str(tmp_path / "runs"))
    run = load(path, ["run.name=other"]).run
    assert (run.name, run.dir) == ("other", str(tmp_path / "runs"))
    run = load(path, ["run.dir=/elsewhere"]).run
    assert (run.name, run.dir) == ("moved", "/elsewhere")


def test_another_file_in_a_runs_folder_is_a_recipe_like_any_other(write):
    write("", "runs/r1/log.txt")
    assert load(write("run: {dir: /far}\n", "runs/r1/mine.yaml"), []).run.dir == "/far"


FOLDER = "data: {name: folder, root: data/images}"


@pytest.mark.parametrize(
    ("text", "words", "name"),
    [
        (FOLDER, [], "mine"),
        (FOLDER, ["data.root=data/images"], "mine"),
        (FOLDER, ["data.root=/elsewhere/my photos/"], "mine-my_photos"),
        (FOLDER, ["data.root=a/v1.5"], "mine-v1.5"),
        (FOLDER, ["data.name=zip", "data.root=a/b.zip"], "mine-b"),
        (FOLDER, ["data.name=zip"], "mine-images"),
        (FOLDER, ["data.name=mnist"], "mine-mnist"),
        (FOLDER, ["data.root=photos", "run.name=own"], "own"),
        ("", [], "mine"),
        ("", ["data.name=digits"], "mine"),
        ("", ["data.name=folder", "data.root=photos"], "mine-photos"),
        ("data: {name: mnist}", ["data.root=/datasets"], "mine"),
    ],
)
def test_a_run_on_other_data_has_a_name_of_its_own(tmp_path, text, words, name):
    (tmp_path / "mine.yaml").write_text(text)
    assert load(tmp_path / "mine.yaml", words).run.name == name


def test_what_is_no_run_is_told_from_runs_near_it(tmp_path):
    """In it, around it and beside it; where there is none, what makes one."""
    with pytest.raises(UserError, match=r"nothing is there\): name one that train.py has made"):
        load_run(tmp_path / "runs/ring", [])
    for name in ("ring", "moons"):
        (tmp_path / "runs" / name / "checkpoints/step-00000002").mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    wrong = {"": "ring", "moon": "moons", "rings": "ring", "ring/checkpoints": "ring"}
    wrong["ring/checkpoints/step-00000002"] = "ring"
    for path, meant in wrong.items():
        with pytest.raises(UserError, match=rf"is not the folder of a run \(.*: name one, such as .*/{meant}\.$"):
            load_run(tmp_path / "runs" / path, [])
