"""sample.py and evaluate.py on a finished run."""

import json
import os
import shutil
from pathlib import Path

import numpy
import pytest
from PIL import Image

import evaluate
import sample
from tests.runs import run
from utils.errors import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a class-conditional generator and of one without classes."""
    folder = tmp_path_factory.mktemp("runs")
    assert run(folder, "run.name=plain") == 0
    assert run(folder, "run.name=classes", "game.conditional=true") == 0
    assert run(folder, recipe="configs/ring.yaml") == 0
    assert run(folder, "run.name=ring-by-class", "game.conditional=true", recipe="configs/ring.yaml") == 0
    assert run(folder, "game.conditional=true", recipe=str(styled_recipe(folder))) == 0
    return folder


def styled_recipe(folder) -> Path:
    """A recipe with a mapping network on the digits."""
    path = folder / "styled.yaml"
    path.write_text("{model: {name: stylegan2, minibatch_std: 1}}")
    return path


def pixels(path, *options: str) -> numpy.ndarray:
    """What sample.py draws."""
    out = path.parent / "out.png"
    assert sample.main([str(path), "--out", str(out), *options]) == 0
    return numpy.asarray(Image.open(out))


def test_grid_is_written_where_it_is_said(finished, capsys):
    assert sample.main([str(finished / "plain"), "--count", "6", "--columns", "3"]) == 0
    path = capsys.readouterr().out.strip()
    assert path.startswith(str(finished / "plain/samples/grid-step-00000012-ema-seed-0"))
    width, height = Image.open(path).size
    assert width / height == pytest.approx(1.5, abs=0.02)  # 3 columns, 2 rows, and 2 pixels between


def test_samples_are_a_function_of_the_seed_and_the_weights(finished):
    plain = finished / "plain"
    assert (pixels(plain) == pixels(plain, "--seed", "0")).all()
    for options in (["--seed", "1"], ["--weights", "raw"], ["--truncation", "0.3"]):
        assert (pixels(plain) != pixels(plain, *options)).any()


def test_classes(finished):
    folder = finished / "classes"
    assert (pixels(folder, "--class", "3") != pixels(folder, "--class", "4")).any()
    grid = pixels(folder, "--interpolate", "2", "--columns", "5")
    assert grid.shape[1] > grid.shape[0]


@pytest.mark.parametrize("options", [["--count", "6"], ["--interpolate", "3"]])
def test_truncation_of_styles(finished, options):
    """At 1 nothing changes. At 0 samples of a class are the same whatever the seed, and a walk stands still."""
    folder = finished / "styled"
    whole = pixels(folder, *options)
    assert (pixels(folder, "--truncation", "1", *options) == whole).all()
    assert (pixels(folder, "--truncation", "0.5", *options) != whole).any()
    none = pixels(folder, "--truncation", "0", *options)
    assert (none != whole).any()
    assert (pixels(folder, "--truncation", "0", "--seed", "1", *options) == none).all()


def test_points_are_drawn_over_the_target(finished):
    assert pixels(finished / "ring", "--count", "100").shape == (500, 500, 3)


def test_a_run_can_be_sampled_without_its_data(finished, tmp_path):
    """The checkpoint knows the shape of its samples: pictures need no copy of the training set."""
    shutil.copytree(finished / "plain", tmp_path / "moved")
    config = (tmp_path / "moved/config.yaml").read_text().replace("name: digits  ", "name: mnist   ")
    (tmp_path / "moved/config.yaml").write_text(config)
    assert (pixels(tmp_path / "moved") == pixels(finished / "plain")).all()


WRONG = {
    "no folder": (["{}/nothing"], "not the folder of a run"),
    "no class": (["{}/plain", "--class", "1"], "class-conditional"),
    "class out of range": (["{}/classes", "--class", "10"], "from 0 to 9"),
    "truncation": (["{}/plain", "--truncation", "0"], "above 0"),
    "no number": (["{}/plain", "--truncation", "nan"], "above 0"),
    "truncation of styles": (["{}/styled", "--truncation", "-0.1"], "from 0 up"),
    "no number of styles": (["{}/styled", "--truncation", "inf"], "from 0 up"),
    "truncated walk": (["{}/plain", "--truncation", "1", "--interpolate", "2"], "cannot be used together"),
    "points": (["{}/ring", "--interpolate", "2"], "makes points"),
    "columns of points": (["{}/ring", "--columns", "2"], "--columns is for images"),
    "number of a walk's samples": (["{}/plain", "--interpolate", "2", "--count", "9"], "--count cannot be used"),
    "t-SNE of samples": (["{}/plain", "--tsne"], "--tsne draws features"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(finished, case):
    words, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        sample.main([word.format(finished) for word in words])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("main", [sample.main, evaluate.main], ids=["sample", "evaluate"])
def test_run_without_checkpoint_is_one_sentence(finished, tmp_path, main):
    (tmp_path / "config.yaml").write_text((finished / "plain/config.yaml").read_text())
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        main([str(tmp_path)])


def test_evaluation_repeats_what_training_reported(finished, capsys):
    assert evaluate.main([str(finished / "plain"), "--samples", "32", "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    lines = (finished / "plain/metrics.jsonl").read_text().splitlines()
    before = [record for record in map(json.loads, lines) if record["kind"] == "metric"]
    assert [r["value"] for r in again] == [r["value"] for r in before]
    kept = (finished / "plain/evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == again


def test_evaluation_of_points(finished, capsys):
    assert evaluate.main([str(finished / "ring"), "--weights", "raw"]) == 0
    output = capsys.readouterr().out
    assert "modes: " in output
    assert "high quality: " in output
    with pytest.raises(UserError, match="at least 2"):
        evaluate.main([str(finished / "ring"), "--samples", "1"])


def test_evaluation_on_data_of_other_sizes_is_refused(finished):
    with pytest.raises(UserError, match=r"shape \[1, 8, 8\], and data set 'digits' has shape \(1, 16, 16\)"):
        evaluate.main([str(finished / "plain"), "data.resolution=16", "data.fit=pad"])
    with pytest.raises(UserError, match="classes 8, and data set 'grid' has classes 25"):
        evaluate.main([str(finished / "ring-by-class"), "data.name=grid"])
    assert evaluate.main([str(finished / "ring"), "data.name=grid"]) == 0  # its networks know of no classes


@pytest.mark.parametrize("option", ["--count", "--columns", "--interpolate"])
@pytest.mark.parametrize("text", ["0", "-1", "1000001", "1" + 24 * "0", "9" * 5000, "x"])
def test_counts_out_of_bounds_are_refused(finished, option, text, capsys):
    with pytest.raises(SystemExit):
        sample.main([str(finished / "plain"), f"{option}={text}"])
    assert "is not a whole number from 1 to 1000000" in capsys.readouterr().err


@pytest.mark.parametrize("samples", [0, 1, 2**63])
def test_numbers_of_evaluated_samples_out_of_bounds_are_refused(finished, samples):
    with pytest.raises(UserError, match="--samples"):
        evaluate.main([str(finished / "plain"), f"--samples={samples}"])


def test_a_picture_into_a_folder_has_the_default_name(finished, tmp_path, capsys):
    (tmp_path / "a.png").mkdir()
    for out in (str(tmp_path), f"{tmp_path}/", str(tmp_path / "a.png")):
        assert sample.main([str(finished / "plain"), "--out", out]) == 0
        name = "grid-step-00000012-ema-seed-0.png"
        assert capsys.readouterr().out.strip().endswith(f"/{name}")
        assert Image.open(tmp_path / name).format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", name]


def test_a_picture_replaces_a_picture(finished, tmp_path):
    out = tmp_path / "a.PNG"
    out.write_bytes(b"old")
    assert sample.main([str(finished / "plain"), "--out", str(out)]) == 0
    assert Image.open(out).format == "PNG"


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.bak", "new/", "link.png", "dangling.png", "pipe.png"])
def test_a_picture_replaces_nothing_else(finished, tmp_path, name):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link.png").symlink_to(tmp_path / "precious")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="--out") as caught:
        sample.main([str(finished / "plain"), "--out", f"{tmp_path}/{name}"])
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("out", ["/dev/null", "/dev/full"])
def test_a_device_is_no_picture(finished, out):
    with pytest.raises(UserError, match="--out"):
        sample.main([str(finished / "plain"), "--out", out])


def test_a_name_with_a_nul_is_refused(finished):
    with pytest.raises(UserError, match="NUL"):
        sample.main([str(finished / "plain"), "--out", "a\0.png"])


def test_a_run_that_cannot_be_written_is_evaluated_with_a_warning(finished, tmp_path, capsys):
    """Another person's folder; as root may write anywhere, something else stands where the file should."""
    copy = tmp_path / "copy"
    shutil.copytree(finished / "plain", copy)
    (copy / "evaluations.jsonl").unlink(missing_ok=True)
    (copy / "evaluations.jsonl").mkdir()
    assert evaluate.main([str(copy), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[0])["metric"]
    assert "evaluations.jsonl could not be written" in said.err
