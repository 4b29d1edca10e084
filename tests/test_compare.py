"""The command compare.py: what it prints and writes."""

import csv

import pytest
import torch
from PIL import Image

import compare
from tests.utils.sweeps.made import made
from utils import pictures
from utils.errors import UserError


@pytest.fixture
def runs(tmp_path):
    for seed in (0, 1):
        for rule in ("alternating", "single_pass"):
            name = f"ring-seed={seed}-rule={rule}"
            path = made(
                tmp_path / "runs", name, f"seed={seed}", f"update.rule={rule}", values={10: 2.0 + seed, 20: 1.0}
            )
            pictures.save(torch.zeros(3, 8, 8, dtype=torch.uint8), path / "samples/step-00000020.png")
    return tmp_path / "runs"


def test_a_folder_holds_the_table_in_three_forms_and_both_pictures(runs, tmp_path, capsys):
    out = tmp_path / "new/out"
    assert compare.main([str(runs), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert (out / "table.txt").read_text() == text
    assert len(text.splitlines()) == 3
    assert (out / "table.md").read_text().count("\n") == 4
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [(row["update.rule"], float(row["reverse KL, last"])) for row in rows] == [
        ("alternating", 1.0), ("single_pass", 1.0),
    ]  # fmt: skip
    assert Image.open(out / "curves.png").size == (1000, 300)  # one metric, over steps and over seconds
    assert Image.open(out / "samples.png").size == (800, 450)  # two groups


@pytest.mark.parametrize(("name", "begins"), [("a.md", "| run |"), ("a.csv", "run,"), ("a.txt", "run "), ("a.png", "")])
def test_a_suffix_chooses_one_form(runs, tmp_path, name, begins):
    assert compare.main([str(runs), "--out", str(tmp_path / name)]) == 0
    if begins:
        assert (tmp_path / name).read_text().startswith(begins)
    else:
        assert Image.open(tmp_path / name).size == (1000, 300)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--metrics", "FID"], "No run has the metric 'FID'"),
        (["--by", "FID"], "No run has the metric 'FID'"),
        (["--over", "sed"], "'sed', which is no key of these runs"),
        (["--out", "a.pdf"], "must be a folder, or end in"),
    ],
)
def test_bad_options_are_one_sentence(runs, words, said):
    with pytest.raises(UserError, match=said):
        compare.main([str(runs), *words])


def test_runs_without_any_record_are_one_sentence(tmp_path, capsys):
    (made(tmp_path, "a", values={}) / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="None of the runs has recorded anything"):
        compare.main([str(tmp_path)])
    assert "nothing is recorded there yet" in capsys.readouterr().err
    made(tmp_path, "b", values={})
    with pytest.raises(UserError, match="has measured anything yet"):
        compare.main([str(tmp_path)])
