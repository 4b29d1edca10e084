"""sample.py and evaluate.py on a finished run."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

import evaluate
import sample
from tests.runs import run
from tests.untrained import saved, untrained
from utils import pictures
from utils.data import writing
from utils.data.datasets import load
from utils.data.image_files import OwnImages
from utils.errors import UserError
from utils.evaluation import sampling
from utils.tasks import drawing


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
    "files of points": (["{}/ring", "--each", "{}/new"], "--each is for images"),
    "film of points": (["{}/ring", "--video", "1"], "--video is for images"),
    "truncated film": (["{}/plain", "--truncation", "1", "--video", "1"], "--truncation and --video cannot"),
    "film as a picture": (["{}/plain", "--video", "1", "--out", "{}/a.png"], "must end in .webp, .gif or .mp4"),
    "mix without styles": (["{}/plain", "--mix", "2"], "is for networks with styles"),
    "mix of all layers": (["{}/styled", "--mix", "4"], "from 1 to 3"),
    "number of a mix's samples": (["{}/styled", "--mix", "2", "--count", "9"], "--count cannot be used"),
    "files in columns": (["{}/plain", "--each", "{}/new", "--columns", "2"], "--columns cannot be used with --each"),
    "files and a picture": (["{}/plain", "--each", "{}/new", "--out", "{}/a.png"], "--out cannot be used with --each"),
    "JPEG": (["{}/plain", "--each", "{}/new.jpg"], "written as PNG, which loses nothing"),
    "tar": (["{}/plain", "--each", "{}/new.tar"], "must be a folder or end in .zip"),
    "a folder that holds files": (["{}/plain", "--each", "{}/ring"], "is there already"),
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


# --- Files, films, mixtures


def cells(grid: numpy.ndarray, count: int, columns: int, side: int) -> list[numpy.ndarray]:
    """The images of a grid whose images are not enlarged."""
    corners = [(2 + (side + 2) * (i // columns), 2 + (side + 2) * (i % columns)) for i in range(count)]
    return [grid[y : y + side, x : x + side] for y, x in corners]


@pytest.mark.parametrize(("name", "options"), [("plain", []), ("plain", ["--truncation", "0.5"]), ("classes", []),
                                               ("styled", ["--truncation", "0.5"])])  # fmt: skip
def test_files_are_the_images_of_the_grid(finished, tmp_path, monkeypatch, name, options):
    """In a folder and in a zip, which the readers of data sets read back with their labels."""
    monkeypatch.setattr(pictures, "MIN_SIDE", 1)
    monkeypatch.setattr(sampling, "MEAN_OF", 200)
    more = ["--count", "21", "--seed", "3", *options]
    grid = cells(pixels(finished / name, "--columns", "7", *more), 21, 7, 8)
    for place, kind in (("files", "folder"), ("files.zip", "zip")):
        assert sample.main([str(finished / name), "--each", str(tmp_path / place), *more]) == 0
        data = load(OwnImages(name=kind, root=str(tmp_path / place), resolution=8, validation=0), 0)
        # In a folder they are sorted by class first: 0, 10, 20, 1, 11, ...
        order = sorted(range(21), key=lambda i: (i % 10, i)) if kind == "folder" and data.classes else range(21)
        assert all((grid[i] == x.permute(1, 2, 0).numpy()).all() for i, x in zip(order, data.train.x, strict=True))
        assert data.classes == (0 if name == "plain" else 10)
        assert name == "plain" or data.train.label.tolist() == [i % 10 for i in order]


def test_a_sample_does_not_depend_on_how_many_there_are(finished, tmp_path):
    """More than are drawn at once, and none of them on a whole number of vectors."""
    for count in (65, 71):
        assert sample.main([str(finished / "plain"), "--each", str(tmp_path / str(count)), "--count", str(count)]) == 0
    files = [sorted((tmp_path / count).iterdir()) for count in ("65", "71")]
    assert [len(found) for found in files] == [65, 71]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1][:65]]


@pytest.mark.parametrize("place", ["files", "files.zip"])
def test_files_that_cannot_all_be_written_are_not_there(finished, tmp_path, monkeypatch, place):
    (tmp_path / f".{place}.partial").write_text("left behind by a process that was killed")
    monkeypatch.setattr(writing, "png", lambda image: contents.pop())
    contents = [b"1", b"2"]
    with pytest.raises(IndexError):
        writing.save_images([(torch.zeros(3, 1, 8, 8), None)], 3, 0, tmp_path / place)
    assert list(tmp_path.iterdir()) == []


def test_files_of_stretched_images_have_their_own_shape_again(tmp_path):
    run = untrained(tmp_path, "dcgan")
    options = sample.parser().parse_args(["run", "--each", "files", "--count", "3"])
    shapes = []
    for aspect in (None, 1.5, 0.5):
        sizes = dataclasses.replace(run.state.sizes, aspect=aspect)
        ((images, label),) = drawing.batches(run.players.average, run.config, sizes, options)
        assert label is None
        shapes.append(tuple(images.shape))
    assert shapes == [(3, 1, 8, 8), (3, 1, 8, 12), (3, 1, 16, 8)]


@pytest.mark.parametrize("option", [["--each", "new"], ["--video", "1"], ["--mix", "2"]], ids=lambda words: words[0])
def test_a_game_of_domains_has_no_samples(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    path = saved(untrained(tmp_path, "dense"))
    with pytest.raises(UserError, match=f"{option[0]} is for generators, and .* is of game.name=adaptation"):
        sample.main([str(path), *option])
    assert [found.name for found in tmp_path.iterdir()] == ["dense"]


def test_an_empty_folder_is_filled(finished, tmp_path):
    (tmp_path / "empty").mkdir()
    assert sample.main([str(finished / "plain"), "--each", str(tmp_path / "empty"), "--count", "2"]) == 0
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["000000.png", "000001.png"]


def test_a_film_begins_with_the_grid_and_comes_back(finished, tmp_path, monkeypatch):
    films = []
    save = pictures.save_film
    monkeypatch.setattr(pictures, "save_film", lambda film, path: save(films.append(film) or film, path))
    assert sample.main([str(finished / "classes"), "--video", "0.4", "--count", "4", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert path.name == "loop-step-00000012-ema-seed-0.webp"
    assert Image.open(path).format == "WEBP"
    film, first = films[0].permute(0, 2, 3, 1).numpy(), pixels(finished / "classes", "--count", "4", "--columns", "4")
    assert len(film) == 10
    assert (film[0] == first).all()
    steps = [abs(film[i].astype(float) - film[i - 1]).mean() for i in range(10)]  # the first is from the end
    assert 0 < steps[0] < 2 * max(steps[1:])


def test_mp4_without_its_package_is_one_sentence(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"film.mp4' needs the package av: run 'pip install av', or name a .webp"):
        sample.main([str(finished / "plain"), "--video", "0.4", "--out", str(tmp_path / "film.mp4")])


def test_mixtures_have_coarse_styles_from_the_left_and_fine_ones_from_above(finished, monkeypatch):
    """Of the first 3 of 4 layers: those that lie at 4 pixels and the first at 8."""
    monkeypatch.setattr(pictures, "MIN_SIDE", 1)
    mixed = cells(pixels(finished / "styled", "--mix", "3", "--columns", "3"), 16, 4, 8)
    grid = cells(pixels(finished / "styled", "--count", "6", "--class", "0"), 6, 8, 8)
    of_class_0 = cells(pixels(finished / "styled", "--mix", "3", "--columns", "3", "--class", "0"), 16, 4, 8)
    assert (mixed[0] == 255).all()
    assert [(of_class_0[1 + i] == grid[3 + i]).all() for i in range(3)] == [True] * 3
    assert [(of_class_0[4 + 4 * i] == grid[i]).all() for i in range(3)] == [True] * 3
    assert len({image.tobytes() for image in mixed}) == 16


@pytest.mark.parametrize("text", ["0", "-1", "61", "nan", "x"])
def test_lengths_of_films_out_of_bounds_are_refused(finished, text, capsys):
    with pytest.raises(SystemExit):
        sample.main([str(finished / "plain"), f"--video={text}"])
    assert "is not a number of seconds, above 0 and up to 60" in capsys.readouterr().err


def test_a_run_that_is_being_trained_is_drawn_with_a_warning(finished, tmp_path, capsys):
    command = [sys.executable, "-c", HOLDER, str(finished / "plain/.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        assert sample.main([str(finished / "plain"), "--out", str(tmp_path)]) == 0
        assert "is being trained by process" in (said := capsys.readouterr().err)
        assert "this is its step 12" in said
        holder.communicate("done")
    assert sample.main([str(finished / "plain"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


HOLDER = """
import fcntl, sys
with open(sys.argv[1]) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print(flush=True)
    sys.stdin.read()
"""
