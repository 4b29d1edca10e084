"""Which runs a sweep consists of, and what they are called."""

import pytest

from tests.runs import ROOT, arguments, run
from utils.config import loading
from utils.errors import UserError
from utils.sweeps.rows import rows_of, values_of

RING, GRID = ROOT / "configs/ring.yaml", ROOT / "configs/grid.yaml"


def names(*overrides: str, recipes: tuple = (RING,)) -> list[str]:
    return [row.config.run.name for row in rows_of(list(recipes), list(overrides))]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=1", ["1"]),
        ("seed=0,1,2", ["0", "1", "2"]),
        ("seed=3,", ["3"]),
        ("run.dir=", [""]),
        ("run.dir=a\\,b,c", ["a,b", "c"]),
        ("run.dir=a\\,b", ["a,b"]),
        ("data.root=[1],[2]", ["[1]", "[2]"]),
        ("optimizer.betas=[0,0.9]", ["[0,0.9]"]),
        ("optimizer.betas=[0,0.9],[0.5,0.999]", ["[0,0.9]", "[0.5,0.999]"]),
        ("penalty.every={r1: 4, r2: 4},{}", ["{r1: 4, r2: 4}", "{}"]),
        ("penalty.every.r1=4,16", ["4", "16"]),
        ("model.widths=64,32", ["64", "32"]),
    ],
)
def test_values_are_told_apart(word, values):
    assert values_of(word) == [f"{word.partition('=')[0]}={value}" for value in values]


@pytest.mark.parametrize("word", ["seed=0,,1", "seed=,1", "seed=,", "run.dir=a,,"])
def test_a_missing_value_is_refused(word):
    with pytest.raises(UserError, match="comma without a value"):
        values_of(word)


def test_all_combinations_have_names_of_what_differs():
    rows = rows_of([RING], ["update.rule=single_pass,alternating", "train.steps=5", "seed=0,1"])
    want = [(rule, seed) for rule in ("single_pass", "alternating") for seed in (0, 1)]
    assert [(row.config.update.rule, row.config.seed) for row in rows] == want
    assert [row.config.run.name for row in rows] == [f"ring-seed={seed}-rule={rule}" for rule, seed in want]
    assert all(row.config.train.steps == 5 for row in rows)


def test_a_rows_words_give_train_the_same_config():
    words = ["optimizer.betas=[0,0.9],[0.5,0.9]", "run.name=a", "run.dir=b\\,c", "seed=1,"]
    for row in rows_of([RING], words):
        recipe, *overrides = row.words
        assert loading.load(loading.path_of(recipe), overrides) == row.config
        assert row.config.run.dir == "b,c"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["seed=4,"], "ring-seed=4"),
        (["seed=4", "update.rule=alternating"], "ring"),
        (["run.name=mine", "seed=4,"], "mine-seed=4"),
        (["optimizer.betas=[0,0.9],"], "ring-betas=0.0_0.9"),
        (["optimizer.critic_lr=1e-3,"], "ring-critic_lr=0.001"),
        (["train.steps=null,", "optimizer.schedule=constant"], "ring-steps=null"),
        (["update.reuse_fakes=false,"], "ring-reuse_fakes=false"),
        (["data.name=grid,"], "ring-data=grid"),
        (["penalty.every.r1=4,"], "ring-r1=4"),
        (["update.schedule=constant,", "optimizer.schedule=cosine_decay,"],
         "ring-optimizer.schedule=cosine_decay-update.schedule=constant"),
        (["checkpoint.best=reverse KL,"], "ring-best=reverse_KL"),
    ],
)  # fmt: skip
def test_names_are_short_and_legal_everywhere(words, name):
    assert names(*words) == [name]


def test_long_values_are_cut_and_stay_apart():
    folders = ["/" + "a" * 100 + end for end in ("/x", "/b/x")]
    first, second = names(f"run.dir={','.join(folders)}")
    assert first != second
    assert all(len(name) < 60 and name.startswith("ring-dir=") for name in (first, second))
    with pytest.raises(UserError, match="too long for a folder"):
        names("seed=0,1", f"run.name={'a' * 200}")


def test_several_recipes_have_their_own_names():
    assert names("seed=0,1", recipes=(RING, GRID)) == ["ring-seed=0", "ring-seed=1", "grid-seed=0", "grid-seed=1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["update.rul=a,b"], "Unknown key 'update.rul'.*did you mean 'rule'"),
        (["update.rule=single_pass,both"], "In the run of .*ring.yaml update.rule=both: .*'both' is unknown"),
        (["seed=0,00"], "would both be runs/ring-seed=0 .seed=0 and seed=00."),
        (["seed=0,1", "seed=2"], "would both be"),
        (["run.name=a,b"], "run.name has several values"),
        (["game={name: generation},"], "sweep over its keys, such as game.name"),
    ],
)
def test_bad_sweeps_are_one_sentence(words, said):
    with pytest.raises(UserError, match=said) as error:
        names(*words)
    assert "\n" not in str(error.value)


def test_recipes_of_one_name_are_refused():
    with pytest.raises(UserError, match="would both be runs/x"):
        names("run.name=x", recipes=(RING, GRID))


def test_a_finished_run_is_known_without_loading_it(tmp_path):
    words = arguments(tmp_path, recipe="configs/ring.yaml")[1:]
    (row,) = rows_of([RING], words)
    assert not row.is_finished()
    assert run(tmp_path, recipe="configs/ring.yaml") == 0
    assert row.is_finished()
    for other, finished in (("seed=1", False), ("train.steps=13", False), ("log.every=3", True)):
        (changed,) = rows_of([RING], [*words, other])
        assert changed.is_finished() == finished
    for path in (tmp_path / "ring/checkpoints").glob("*/state.json"):
        path.write_text("{")
    assert not row.is_finished()
