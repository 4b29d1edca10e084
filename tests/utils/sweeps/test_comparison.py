"""What becomes of runs in a table: which share a row, which values share a column, and what is told."""

from pathlib import Path

import pytest

from tests.utils.sweeps.made import made
from utils.errors import UserError
from utils.sweeps.comparison import groups_of, measures_of, table_of
from utils.sweeps.results import results_of

RULES = ("alternating", "single_pass")


def table(
    folder: Path, metrics: str = "reverse KL", over: str = "seed", by: tuple = (), at: tuple = ()
) -> list[dict[str, str]]:
    """The rows of the runs in a folder as dictionaries of text; nothing may be warned of."""
    results, keys = results_of([str(folder)], pytest.fail), over.split(",")
    measures = measures_of(results, metrics.split(","), keys)
    found = table_of(groups_of(results, keys, pytest.fail), measures, keys, list(by), list(at))
    return [dict(zip(found.titles, map(str, row), strict=True)) for row in found.rows]


def test_seeds_share_a_row_and_rules_do_not(tmp_path):
    for rule, shift in zip(RULES, (0.0, 10.0), strict=True):
        for seed in range(3):
            values = {10: 1.0 + seed + shift, 20: 2.0 + seed + shift}
            words = [f"seed={seed}", f"update.rule={rule}", f"log.every={3 + seed}"]
            made(tmp_path, f"ring-seed={seed}-rule={rule}", *words, values=values, pace=1.0 + seed)
    rows = table(tmp_path)
    assert [row.pop("update.rule") for row in rows] == list(RULES)
    assert [row.pop("run") for row in rows] == [f"ring-rule={rule}" for rule in RULES]
    means = {"seeds": "3", "steps": "20", "seconds": "40 ± 12", "CPU seconds": "80 ± 23"}  # 20·√(1/3), twice that
    assert rows == [
        {**means, "reverse KL, last": f"{3 + shift:.2f} ± 0.58", "reverse KL, best": f"{2 + shift:.2f} ± 0.58"}
        for shift in (0, 10)
    ]


def test_what_was_measured_once_has_one_column(tmp_path):
    made(tmp_path, "a", values={20: 3.0})
    (row,) = table(tmp_path)
    assert row["reverse KL"] == "3.000"
    assert not [title for title in row if "best" in title]


@pytest.mark.parametrize(("better", "at"), [("accuracy", "7.000"), ("reverse KL", "5.000")])
def test_another_metric_may_choose_the_step(tmp_path, better, at):
    """Of equals the latest; more accuracy is better, less KL is."""
    values, accuracy = {5: 5.0, 10: 6.0, 15: 7.0, 20: 8.0}, {5: 0.1, 10: 0.9, 15: 0.9, 20: 0.2}
    made(tmp_path, "a", values=values, more={step: ("accuracy", value) for step, value in accuracy.items()})
    (row,) = table(tmp_path, by=(better,), at=(10, 11))
    assert row[f"reverse KL, at best {better}"] == at
    assert (row["reverse KL, step 10"], row["reverse KL, step 11"]) == ("6.000", "-")


@pytest.mark.parametrize(
    ("about", "title"),
    [({"samples": 50}, "samples 50"), ({"features_sha256": "d" * 64}, f"features_sha256 {'d' * 12}"),
     ({"reference": "other"}, "reference other"), ({"split": "train"}, "split train")],
)  # fmt: skip
def test_values_of_different_protocols_have_different_columns(tmp_path, about, title):
    made(tmp_path, "a", values={20: 3.0})
    made(tmp_path, "b", "seed=1", values={20: 4.0}, **about)
    (row,) = table(tmp_path)
    assert row[f"reverse KL ({title})"] == "4.000 (1 of 2)"
    values = sorted(value for name, value in row.items() if name.startswith("reverse KL"))
    assert values == ["3.000 (1 of 2)", "4.000 (1 of 2)"]


def test_a_mean_over_data_may_be_asked_for(tmp_path):
    for count, source in enumerate(("books", "dvd")):
        words = [f"data.source={source}.npz", "data.target=c.npz"]
        made(tmp_path, source, *words, recipe="vectors", values={20: 1.0 + 2 * count}, samples=count)
    assert len(table(tmp_path)) == 2
    (row,) = table(tmp_path, over="seed,data.source")
    assert (row["reverse KL"], row["runs"]) == ("2.0 ± 1.0", "2")


def test_other_networks_differ_by_their_name_alone(tmp_path):
    made(tmp_path, "a", values={20: 1.0}, recipe="digits")
    made(tmp_path, "b", values={20: 1.0}, recipe="ring")
    keys = [title for title in table(tmp_path)[0] if title.startswith(("model.", "data."))]
    assert keys == ["data.name", "model.name"]


def test_the_games_own_metrics_are_shown_unless_others_are_asked_for(tmp_path):
    made(tmp_path, "a", values={20: 1.0}, more={20: ("classifier accuracy", 0.5), 10: ("modes", 8)})
    results = results_of([str(tmp_path)], pytest.fail)
    assert [measure.metric for measure in measures_of(results, [], ["seed"])] == ["modes", "reverse KL"]
    with pytest.raises(UserError, match="No run has the metric 'reverse kl'; did you mean 'reverse KL'"):
        measures_of(results, ["reverse kl"], ["seed"])


# --- what is told


def test_unfinished_runs_have_rows_of_their_own_and_are_told(tmp_path):
    made(tmp_path, "a", values={20: 1.0})
    made(tmp_path, "b", "seed=1", values={10: 2.0}, finished=False)
    told: list[str] = []
    results = results_of([str(tmp_path)], told.append)
    groups = groups_of(results, ["seed"], told.append)
    assert [(group.steps, len(group.runs)) for group in groups] == [("20", 1), ("15, unfinished", 1)]
    assert told == [f"{tmp_path}/b is not finished: it is at step 15 of 20, and has its own row."]


def test_a_run_that_was_lengthened_is_unfinished_again(tmp_path):
    path = made(tmp_path, "a", values={20: 1.0})
    config = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(config.replace("steps: 20 ", "steps: 40 "))
    (result,) = results_of([str(path)], lambda text: None)
    assert not result.finished


def test_the_same_run_counts_once(tmp_path):
    for name in "ab":
        made(tmp_path, name, values={20: 1.0})
    told: list[str] = []
    (group,) = groups_of(results_of([str(tmp_path)], pytest.fail), ["seed"], told.append)
    assert len(group.runs) == 1
    assert told == [f"{tmp_path}/b is left out: it is the same run as {tmp_path}/a."]


def test_damage_is_told_and_a_line_that_is_being_written_is_not(tmp_path):
    path = made(tmp_path, "a", values={20: 1.0}) / "metrics.jsonl"
    path.write_text('{"kind": "tr\n\0\0\n' + path.read_text() + '{"kind": "tra')
    told: list[str] = []
    (result,) = results_of([str(tmp_path)], told.append)
    assert result.finished
    assert told == [f"{tmp_path}/a: 2 damaged lines of metrics.jsonl are left out."]


@pytest.mark.parametrize(
    ("damage", "said"), [("config.yaml", "a/config.yaml"), ("metrics.jsonl", "nothing is recorded there yet")]
)
def test_runs_that_cannot_be_read_are_left_out_and_told(tmp_path, damage, said):
    (made(tmp_path, "a", values={20: 1.0}) / damage).write_text("steps: {" if damage == "config.yaml" else "")
    made(tmp_path, "b", values={20: 1.0})
    told: list[str] = []
    assert [result.folder.path.name for result in results_of([str(tmp_path)], told.append)] == ["b"]
    assert len(told) == 1
    assert said in told[0]


def test_runs_are_named_by_folders_globs_and_the_folder_that_holds_them(tmp_path):
    for name in ("ring-a", "ring-b", "grid-a"):
        made(tmp_path, name, values={20: 1.0})

    def found(*words: str) -> list[str]:
        return [result.folder.path.name for result in results_of([str(tmp_path / word) for word in words], pytest.fail)]

    assert found("ring-a") == ["ring-a"]
    assert found("ring-*", "ring-a") == ["ring-a", "ring-b"]
    assert found("") == ["grid-a", "ring-a", "ring-b"]
    with pytest.raises(UserError, match="names nothing; did you mean 'ring-a'"):
        found("ring_a")
    with pytest.raises(UserError, match=r"names nothing: name one that train\.py has made"):
        found("nothing/ring-a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        found("empty")


def test_seconds_are_read_between_the_lines_of_the_log(tmp_path):
    """Two seconds a step, lines at 5, 10 and 15 of 20 steps."""
    (result,) = results_of([str(made(tmp_path, "a", values={20: 1.0}))], pytest.fail)
    assert [result.seconds_at(step) for step in (0, 1, 5, 12, 20)] == [0, 2, 10, 24, 40]
    assert result.seconds_at(12, "cpu_seconds") == 48
