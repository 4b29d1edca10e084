"""Pictures: every pixel of a grid, and the place and colour of points."""

import math

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image

from utils import pictures
from utils.errors import UserError
from utils.pictures import picture, save

BLUE = torch.tensor([31, 119, 180])  # matplotlib's tab:blue


# --- Grids


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [48, 64])
@pytest.mark.parametrize(("count", "columns"), [(6, 3), (5, 3), (4, 4), (3, 1)])
def test_the_size_of_a_grid(channels, size, count, columns):
    """Two pixels around every image."""
    image = picture(torch.zeros(count, channels, size, size), columns)
    rows = math.ceil(count / columns)
    assert image.shape == (3, rows * (size + 2) + 2, columns * (size + 2) + 2)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize(("size", "zoom"), [(8, 6), (16, 3), (28, 2), (32, 2), (47, 2), (48, 1), (64, 1)])
def test_small_images_are_enlarged_to_be_seen(size, zoom):
    image = picture(torch.zeros(2, 1, size, size), columns=2)
    assert image.shape[1] == size * zoom + 4


def tile(image: torch.Tensor, i: int, size: int = 48) -> torch.Tensor:
    """The ``i``-th image of a grid's first row."""
    left = 2 + i * (size + 2)
    return image[:, 2 : 2 + size, left : left + size]


def test_images_that_are_large_enough_are_shown_as_they_are():
    draw = torch.Generator().manual_seed(0)
    level = torch.randint(0, 256, (2, 3, 48, 48), generator=draw)
    image = picture(level / 127.5 - 1, columns=2)
    assert all(torch.equal(tile(image, i), level[i].to(torch.uint8)) for i in range(2))


def test_an_enlarged_image_keeps_its_places():
    """A white pixel is the brightest spot, in the middle of where it lies enlarged."""
    x = torch.full((4, 1, 8, 8), -1.0)
    places = [(0, 0), (0, 7), (5, 2), (7, 7)]
    for i, (row, column) in enumerate(places):
        x[i, 0, row, column] = 1
    image = picture(x, columns=4)
    for i, (row, column) in enumerate(places):
        brightest = (tile(image, i)[0] == tile(image, i)[0].max()).nonzero().float().mean(0)
        assert (brightest / 6).int().tolist() == [row, column]


def test_an_enlarged_image_does_not_run_into_its_neighbour():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 8, 8, generator=draw) * 2 - 1
    image = picture(x, columns=3)
    for i in range(3):
        assert torch.equal(tile(image, i), tile(picture(x[[i, i]], columns=2), 0))


@pytest.mark.parametrize("level", [-1.0, -0.6, 1.0])
def test_an_even_image_stays_even(level):
    """Enlarged or not; weights of an interpolation sum to 1 up to rounding, far from half a level here."""
    image = picture(torch.full((1, 3, 8, 8), level).repeat(2, 1, 1, 1), columns=2)
    assert tile(image, 0).unique().tolist() == [round((level + 1) * 127.5)]


def test_values_from_black_to_white_and_beyond():
    """-1 is 0, 1 is 255, 0 is 127.5, which rounds to even; values out of range are clamped, not wrapped around."""
    x = torch.tensor([-1.0, 1.0, 0.0, -3.0, 3.0]).view(5, 1, 1, 1).expand(5, 1, 48, 48)
    image = picture(x, columns=5)
    assert [int(image[0, 10, 10 + 50 * i]) for i in range(5)] == [0, 255, 128, 0, 255]


def test_gray_is_gray_and_the_border_is_white():
    image = picture(torch.full((4, 1, 48, 48), -0.5), columns=2)
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])
    assert bool((image[:, :2] == 255).all())
    assert bool((image[:, :, 50:52] == 255).all())


def test_images_are_in_reading_order():
    x = torch.linspace(-1, 1, 4).view(4, 1, 1, 1).expand(4, 1, 48, 48)
    image = picture(x, columns=2)
    assert [int(image[0, y, x]) for y in (10, 60) for x in (10, 60)] == [0, 85, 170, 255]


def test_samples_are_not_changed():
    x = torch.full((2, 1, 8, 8), 3.0)
    picture(x, columns=2)
    assert bool((x == 3).all())


def test_half_precision_and_channels_last():
    x = (torch.arange(2 * 3 * 48 * 48) % 256).view(2, 3, 48, 48) / 127.5 - 1
    want = picture(x, columns=2)
    assert torch.equal(picture(x.contiguous(memory_format=torch.channels_last), columns=2), want)
    assert picture(x.bfloat16(), columns=2).dtype == torch.uint8


# --- Files


def test_a_png_holds_the_picture(tmp_path):
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 20, 30), generator=draw, dtype=torch.uint8)
    path = save(image, tmp_path / "new" / "folder" / "a.png")
    assert path == tmp_path / "new" / "folder" / "a.png"
    with Image.open(path) as file:
        assert file.format == "PNG"
        assert torch.equal(torch.from_numpy(np.array(file)).permute(2, 0, 1), image)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_a_png_replaces_another(tmp_path):
    path = tmp_path / "a.png"
    for level in (0, 200):
        save(torch.full((3, 5, 5), level, dtype=torch.uint8), path)
    with Image.open(path) as file:
        assert file.getpixel((0, 0)) == (200, 200, 200)


def test_a_png_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save(torch.zeros(3, 5, 5, dtype=torch.uint8), path)
    before = path.read_bytes()

    def die_halfway(self, target, **options):
        target.write_bytes(before[:20])
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", die_halfway)
    for name in ("a.png", "b.png"):
        with pytest.raises(KeyboardInterrupt):
            save(torch.ones(3, 5, 5, dtype=torch.uint8), tmp_path / name)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.glob("*.png")] == ["a.png"]


# --- Scatter plots


def blue_pixels(image: torch.Tensor) -> torch.Tensor:
    """Places ``[n, 2]`` (row, column) of fully blue pixels; a single point is translucent, many in a place are not."""
    return ((image - BLUE[:, None, None]).abs().amax(0) <= 2).nonzero().float()


@pytest.fixture
def centres():
    return torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def test_a_scatter_plot_is_a_picture(centres):
    image = picture(torch.zeros(10, 2), columns=3, centres=centres)
    assert image.shape == (3, 500, 500)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize(
    ("x", "y"), [(-1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, -1.0)], ids=["left", "right", "top", "bottom"]
)
def test_points_are_blue_and_where_they_should_be(centres, x, y):
    image = picture(torch.tensor([[x, y]]).expand(50, 2), columns=1, centres=centres)
    place = blue_pixels(image)
    assert len(place) > 0
    row, column = place.mean(0).tolist()
    middle = 250
    assert (column - middle) * x > 100 if x else abs(column - middle) < 50
    assert (row - middle) * -y > 100 if y else abs(row - middle) < 50


def test_modes_are_marked_and_fix_the_limits(centres):
    """Points far off do not shrink the plot: pictures of a run can be compared."""
    orange = torch.tensor([255, 127, 14])[:, None, None]
    near, far = (picture(torch.full((3, 2), value), 1, centres) for value in (0.0, 1e4))
    for image in (near, far):
        assert bool(((image - orange).abs().amax(0) <= 2).any())
    assert torch.equal(near[:, :150, 150:200], far[:, :150, 150:200])


def test_points_without_modes():
    image = picture(torch.tensor([[3.0, 4.0]]).expand(50, 2), columns=1)
    assert len(blue_pixels(image)) > 0


def test_no_figure_stays_open(centres):
    picture(torch.zeros(3, 2), 1, centres)
    assert pyplot.get_fignums() == []


def test_drawing_is_a_function_of_the_points(centres):
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(picture(points, 1, centres), picture(points, 1, centres))


def test_clouds_have_a_colour_each_and_a_boundary_where_there_is_a_plane():
    draw = torch.Generator().manual_seed(0)
    label = torch.arange(30) % 3
    two = [pictures.Cloud(name, torch.randn(30, 5, generator=draw) + i, label) for i, name in enumerate("ab")]
    without = pictures.clouds(two, ("x", "y", "z"))
    u, v = torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9), indexing="xy")
    points = torch.rand(30, 2, generator=draw)
    plane = pictures.Plane(u, v, (u > 0).long(), points, label, points)
    with_plane = pictures.clouds(two, ("x", "y", "z"), plane)
    assert with_plane.shape[2] > without.shape[2]  # a third panel
    left = without[:, :, : without.shape[2] // 2].int()
    for colour in ([31, 119, 180], [255, 127, 14]):  # half transparent on white: at least half of the way there
        target = (torch.tensor(colour)[:, None, None] + 255) // 2
        assert int(((left - target).abs().amax(0) <= 3).sum()) > 20
    assert torch.equal(without, pictures.clouds(two, ("x", "y", "z")))


def test_a_single_feature_is_drawn_as_a_line():
    assert pictures.clouds([pictures.Cloud("a", torch.rand(9, 1), torch.zeros(9).long())], ("x",)).dtype == torch.uint8


def test_a_confusion_matrix_is_dark_where_a_class_is_read():
    right = pictures.confusion(torch.eye(4) * 10, tuple("abcd"))
    wrong = pictures.confusion(torch.eye(4).flip(0) * 10, tuple("abcd"))
    assert right.shape == wrong.shape
    assert not torch.equal(right, wrong)
    assert abs(right.float().mean() - wrong.float().mean()) < 1  # the same cells, elsewhere


def test_every_image_gets_its_caption():
    one, two = (pictures.captioned(torch.zeros(n, 3, 8, 8), ["7 99 %"] * n, columns=2) for n in (2, 3))
    assert two.shape[1] > one.shape[1]  # a second row
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(("aspect", "size"), [(1.5, (64, 96)), (0.5, (128, 64)), (1.0, (64, 64))])
def test_stretched_images_have_their_own_shape_again(aspect, size):
    """No pixel is lost: one side grows. The upper half of each image is black, the lower one white."""
    x = torch.full((2, 1, 64, 64), -1.0)
    x[:, :, 32:] = 1
    image = picture(x, columns=2, aspect=aspect)
    H, W = size
    assert image.shape == (3, H + 4, 2 * W + 6)  # frames of two pixels
    assert image[:, 2 : H // 2 - 2, 4:-4].float().mean() < 30  # the bright frame between the two is in it
    assert image[:, H // 2 + 6 : -2, 4:-4].min() == 255


@pytest.mark.parametrize("form", ["webp", "gif"])
def test_a_film_has_all_frames_and_begins_again(tmp_path, form):
    frames = torch.stack([torch.full((3, 20, 30), 25 * i, dtype=torch.uint8) for i in range(10)])
    with Image.open(pictures.save_film(frames, tmp_path / f"film.{form}")) as film:
        assert (film.format, film.size, film.n_frames, film.info["loop"]) == (form.upper(), (30, 20), 10, 0)
        film.seek(7)
        shown = np.asarray(film.convert("RGB"))
        assert abs(shown.astype(int) - 175).max() <= 2  # WebP loses a little
    assert [path.name for path in tmp_path.iterdir()] == [f"film.{form}"]


@pytest.mark.parametrize("size", [(20, 30), (21, 31)])
def test_an_mp4_has_all_frames(tmp_path, size):
    """Odd sides get one more white pixel. Video has 219 shades for 255, an error of 0.6; compression costs 1 more."""
    av = pytest.importorskip("av")
    frames = torch.stack([torch.full((3, *size), 25 * i, dtype=torch.uint8) for i in range(10)])
    with av.open(str(pictures.save_film(frames, tmp_path / "film.mp4"))) as film:
        assert film.streams.video[0].average_rate == pictures.FRAMES_PER_SECOND
        shown = [frame.to_ndarray(format="rgb24").astype(int) for frame in film.decode(video=0)]
    assert len(shown) == 10
    for i, frame in enumerate(shown):
        assert frame.shape == (-(-size[0] // 2) * 2, -(-size[1] // 2) * 2, 3)
        assert abs(frame[:20, :30] - 25 * i).max() <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("form", pictures.LONGEST_SIDE)
def test_a_film_that_is_too_large_for_its_format_is_refused(tmp_path, form):
    frames = torch.zeros(2, 3, 2, pictures.LONGEST_SIDE[form] + 1, dtype=torch.uint8)
    with pytest.raises(UserError, match=rf"at most {pictures.LONGEST_SIDE[form]} a side: ask for fewer images"):
        pictures.save_film(frames, tmp_path / f"film.{form}")
    assert not list(tmp_path.iterdir())
