"""project.py finds images again that the generator itself has made, and reads those of others."""

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import project
from models import FAMILIES
from tests.untrained import RECIPES, saved, untrained
from utils import pictures
from utils.data.writing import png
from utils.errors import UserError
from utils.evaluation import projection
from utils.evaluation.sampling import has_mapping, latents, sample, to_bytes

OF_IMAGES = [name for name, (_, sizes, _) in RECIPES.items() if FAMILIES[name].generator and len(sizes.shape) == 3]


def made(run, classes: list[int], seed: int = 1) -> torch.Tensor:
    """Images of a run's generator, of these classes if it takes labels."""
    label = torch.tensor(classes) if run.config.game.conditional else None
    return sample(run.players.average, latents(len(classes), run.config.model.latent_dim, seed), label)


@pytest.mark.parametrize("family", OF_IMAGES)
def test_images_of_the_generator_are_found_again(tmp_path, family):
    """At a quarter of the distance of the nearest of 256 random samples, or less: after 60 steps at most 0.19 was
    measured (BatchNorm, where training has not begun, leaves hardly any slope), with R3GAN 0.006.
    """
    run = untrained(tmp_path, family)
    generator, target = run.players.average, made(run, [3, 7])
    classes = 10 if run.config.game.conditional else 0
    before = [p.requires_grad for p in generator.parameters()]
    found = projection.project(
        generator, target, run.config.model.latent_dim, classes, projection.pixels, starts=2, steps=60, seed=0
    )
    assert (found.distance <= 0.25 * found.before).all()
    again = projection.sample_points(generator, found.point, found.label)
    # The samples are those of the points, but for rounding in batches of another size; and the distance is theirs.
    torch.testing.assert_close(again, found.samples)
    torch.testing.assert_close((target - again).square().mean((1, 2, 3)), found.distance)
    assert [p.requires_grad for p in generator.parameters()] == before
    assert all(p.grad is None for p in generator.parameters())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Class-conditional runs with and without styles, and one of points and of a game of domains."""
    folder = tmp_path_factory.mktemp("runs")
    for family in ("r3gan", "stylegan2", "mlp", "dense"):
        run = untrained(folder, family)
        saved(run)
        if len(run.state.sizes.shape) == 3:
            for i, image in enumerate(to_bytes(made(run, [3, 7]))):
                (folder / f"{family}-{i}.png").write_bytes(png(image))
    return folder


@pytest.mark.parametrize(
    ("family", "kind", "options"), [("stylegan2", "styles", []), ("r3gan", "latent", ["--class", "3"])]
)
def test_pictures_and_points_are_written(runs, tmp_path, capsys, monkeypatch, family, kind, options):
    monkeypatch.setattr(pictures, "MIN_SIDE", 1)
    images = [str(runs / f"{family}-{i}.png") for i in range(2)]
    words = [str(runs / family), *images, "--pixels", "--steps", "5", "--walk", "4", "--out", str(tmp_path), *options]
    assert project.main(words) == 0
    *paths, first, second = capsys.readouterr().out.splitlines()
    assert all("distance" in line for line in (first, second))
    stem = tmp_path / "projection-step-00000005-ema-seed-0"
    assert paths == [f"{stem}.png", f"{stem}-walk.png", f"{stem}.safetensors"]
    shown, walk = (numpy.asarray(Image.open(path))[..., 0] for path in paths[:2])
    assert (shown.shape, walk.shape) == ((22, 22), (12, 42))  # images of 8 pixels, 2 pixels between
    assert (shown[2:10, 2:10] == numpy.asarray(Image.open(images[0]))).all()
    # A walk begins and ends at what was found, but for the rounding of its sines.
    ends = (walk[2:10, 2:10], walk[2:10, 32:40])
    for i, end in enumerate(ends):
        assert abs(end.astype(int) - shown[12:20, 2 + 10 * i : 10 + 10 * i]).max() <= 1
    points = load_file(paths[2])
    assert points.keys() == {kind, "distance", "label"}
    assert points[kind].shape == (2, 8 if family == "stylegan2" else 32)
    assert family == "stylegan2" or points["label"].tolist() == [3, 3]


def test_features_are_compared_too(runs, tmp_path, monkeypatch, capsys):
    """The distance is that of pixels and, in units of the images' own, that of features."""
    monkeypatch.setattr(projection, "POOL", 4)
    words = [str(runs / "r3gan"), str(runs / "r3gan-0.png"), "--steps", "2", "--starts", "1", "--out", str(tmp_path)]
    distances = []
    for options in ([], ["--pixels"]):
        assert project.main([*words, *options]) == 0
        distances.append(float(load_file(next(tmp_path.glob("*.safetensors")))["distance"]))
    assert distances[0] > distances[1] > 0


def test_images_are_fitted_as_those_of_training(runs, tmp_path):
    """Another size needs data.fit, as in training; colours become gray where the network knows no others."""
    Image.fromarray(numpy.full((20, 12, 3), (255, 0, 0), dtype=numpy.uint8)).save(tmp_path / "a.png")
    words = [str(runs / "r3gan"), str(tmp_path / "a.png"), "--pixels", "--steps", "1", "--out", str(tmp_path)]
    with pytest.raises(UserError, match=r"has 12x20 pixels .* set data.fit=crop"):
        project.main(words)
    assert project.main([*words, "data.fit=crop"]) == 0


WRONG = {
    "no folder": (["{}/nothing", "{}/r3gan-0.png"], "not the folder of a run"),
    "no image": (["{}/r3gan", "{}/nothing.png"], "There is no image file"),
    "no image at all": (["{}/r3gan", "data.fit=crop"], "No image is named"),
    "not an image": (["{}/r3gan", "{}/r3gan/config.yaml"], "cannot be decoded"),
    "points": (["{}/mlp", "{}/r3gan-0.png"], "makes points"),
    "domains": (["{}/dense", "{}/r3gan-0.png"], "no generator to search in"),
    "class": (["{}/r3gan", "{}/r3gan-0.png", "--class", "10"], "from 0 to 9"),
    "one image": (["{}/r3gan", "{}/r3gan-0.png", "--walk", "3"], "name at least two"),
    "starts": (["{}/r3gan", "{}/r3gan-0.png", "--starts", "257"], "at most 256"),
    "JPEG": (["{}/r3gan", "{}/r3gan-0.png", "--out", "a.jpg"], "must end in .png"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(runs, case):
    words, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        project.main([word.format(runs) for word in words])
    assert "\n" not in str(error.value)


def test_a_walk_from_class_to_class_needs_styles(runs, tmp_path):
    found = projection.Found(torch.zeros(2, 3), torch.tensor([1, 2]), torch.zeros(2, 1, 8, 8), torch.zeros(2), None)
    options = project.parser().parse_args([str(runs), "a.png", "b.png", "--walk", "3"])
    with pytest.raises(UserError, match=r"nearest to \[1, 2\]: give --class"):
        project.check_walk(options, found, mapped=False)
    project.check_walk(options, found, mapped=True)
    project.check_walk(options, found._replace(label=torch.tensor([1, 1])), mapped=False)


def test_one_style_serves_all_layers(tmp_path):
    generator = untrained(tmp_path, "stylegan2").players.average
    assert has_mapping(generator)
    z, label = latents(2, 8, seed=0), torch.tensor([1, 2])
    torch.testing.assert_close(
        projection.sample_points(generator, generator.map(z, label)[:, 0], None), sample(generator, z, label)
    )
