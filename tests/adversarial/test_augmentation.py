"""What the critic sees: as in the papers, differentiable twice, a function of the draw and of each sample alone."""

import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adversarial.augmentation import (
    ADA,
    BILINEAR,
    DIFFAUGMENT,
    NAMES,
    NEAREST,
    PIPELINE,
    REFLECTION,
    ZEROS,
    augmentation,
    diffaugment,
    pipeline,
    resampled,
    resamples,
)
from adversarial.draws import Draw
from adversarial.penalties import Consistency
from tests.adversarial.toy_games import SeededDraw

R3GAN = {"blit": 1.0, "geometry": 1.0, "colour": 0.5, "cutout": 1.0}
ALL = {
    **{f"diffaugment {name}": diffaugment((name,)) for name in (*DIFFAUGMENT, "mirror")},
    "diffaugment": diffaugment(),
    **{group: pipeline({group: 1.0}) for group in PIPELINE},
    "ada": pipeline(ADA),
    "r3gan": pipeline(R3GAN),
}
every_augmentation = pytest.mark.parametrize("name", ALL)


def images(n: int, channels: int = 3, size: int = 8) -> Tensor:
    return SeededDraw(n, "images").normal("x", (channels, size, size)).tanh()


class Fixed:
    """A draw that returns the same numbers whatever is asked for."""

    def __init__(self, n: int, uniform: float = 0.5, normal: float = 0.0, **streams: list[float]):
        self.n, self.values, self.streams = n, {"uniform": uniform, "normal": normal}, streams

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        return self._full("uniform", stream, shape)

    def normal(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        return self._full("normal", stream, shape)

    def _full(self, kind: str, stream: str, shape: tuple[int, ...]) -> Tensor:
        given = self.streams.get(stream.replace(" ", "_"))
        if given is None:
            return torch.full((self.n, *shape), self.values[kind], dtype=torch.float64)
        return torch.tensor(given, dtype=torch.float64).reshape(1, *shape).expand(self.n, *shape)


# --- differentiable twice, sample by sample --------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@every_augmentation
def test_first_and_second_derivatives(name, channels):
    transform = ALL[name](SeededDraw(2), "augment", 0.8)
    x = images(2, channels, 4).requires_grad_()
    assert torch.autograd.gradcheck(transform, (x,))
    assert torch.autograd.gradgradcheck(lambda x: transform(x).pow(3), (x,))


@every_augmentation
def test_linear_with_a_constant(name):
    """Each is an affine map of an image: so the gradient's norm tells nothing of the image itself."""
    transform = ALL[name](SeededDraw(3), "augment", 0.8)
    x, y = images(3), images(3).flip(0)
    middle = transform((x + y) / 2)
    torch.testing.assert_close(middle, (transform(x) + transform(y)) / 2, rtol=1e-12, atol=1e-12)


@every_augmentation
def test_a_sample_depends_on_no_other(name):
    transform = ALL[name](SeededDraw(4), "augment", 0.8)
    x = images(4)
    other = x.clone()
    other[1:] = -other[1:]
    assert torch.equal(transform(x)[0], transform(other)[0])


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    name=st.sampled_from(sorted(ALL)),
    n=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([4, 5, 8, 9]),
    p=st.floats(0, 1),
    step=st.integers(0, 1000),
)
def test_any_image_stays_an_image_and_the_same_draw_gives_the_same(name, n, channels, size, p, step):
    x = images(n, channels, size)
    first, again = (ALL[name](SeededDraw(n, str(step)), "augment", p)(x) for _ in range(2))
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert bool(first.isfinite().all())
    assert torch.equal(first, again)


@every_augmentation
def test_the_same_global_batch_at_any_number_of_processes(name):
    x = images(6).float()
    names, device = (0, 1), torch.device("cpu")
    whole = ALL[name](Draw(names, 6, slice(None), device), "augment", 0.7)(x)
    parts = [ALL[name](Draw(names, 6, slice(i, i + 2), device), "augment", 0.7)(x[i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)


@every_augmentation
def test_real_and_fake_are_changed_apart(name):
    x = images(8)
    real, fake = (ALL[name](SeededDraw(8), f"augment {side}", 1.0)(x) for side in ("real", "fake"))
    assert not torch.equal(real, fake)


@pytest.mark.parametrize("name", [*PIPELINE, "ada", "r3gan"])
def test_with_probability_0_nothing_changes(name):
    x = images(8)
    torch.testing.assert_close(ALL[name](SeededDraw(8), "augment", torch.zeros(()))(x), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("group", PIPELINE)
def test_each_change_happens_with_probability_p(group):
    """Of 2000 images a share that is known for each group stays as it is (±4 standard deviations of 1.1 %)."""
    n, p = 2000, 0.3
    x = images(1, 3, 4).expand(n, -1, -1, -1)
    same = (ALL[group](SeededDraw(n), "augment", p)(x) - x).abs().amax((1, 2, 3)) < 1e-9
    # A flip or quarter turn may be none, and of 4 pixels at most half a one is moved: which rounds to none, or to one.
    alone = {"blit": (1 - p / 2) * (1 - 3 * p / 4), "geometry": (1 - p) ** 4, "colour": (1 - p) ** 4 * (1 - p / 2)}
    assert same.double().mean().item() == pytest.approx({**alone, "cutout": 1 - p}[group], abs=0.045)


# --- what each of them does ------------------------------------------------------------------------------------------


def test_colour_of_diffaugment():
    """Brightness +0.2, then twice the saturation u = 0.8, contrast 0.9 + 1/2."""
    x = images(2)
    draw = Fixed(2, augment_colour=[0.7, 0.8, 0.9])
    y = x + 0.2
    grey = y.mean(1, keepdim=True)
    y = grey + 1.6 * (y - grey)
    level = y.mean((1, 2, 3), keepdim=True)
    got = diffaugment(("colour",))(draw, "augment", 1.0)(x)
    torch.testing.assert_close(got, level + 1.4 * (y - level), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("u", "pixels"), [(0.0, -2), (0.5, 0), (0.999, 2)])
def test_translation_moves_whole_pixels_and_zeros_move_in(u, pixels):
    x = images(1, 1, 16)
    got = diffaugment(("translation",))(Fixed(1, augment_translation=[u, 0.5]), "augment", 1.0)(x)
    want = torch.zeros_like(x)
    if pixels > 0:
        want[..., pixels:] = x[..., :-pixels]
    elif pixels < 0:
        want[..., :pixels] = x[..., -pixels:]
    else:
        want = x
    assert torch.equal(got, want)


def test_translation_reaches_every_distance():
    x = torch.zeros(400, 1, 16, 16, dtype=torch.float64)
    x[:, :, 8, 8] = 1
    seen = diffaugment(("translation",))(SeededDraw(400), "augment", 1.0)(x)
    places = {tuple(place) for place in seen.nonzero()[:, 2:].tolist()}
    assert places == {(a, b) for a in range(6, 11) for b in range(6, 11)}


@pytest.mark.parametrize(("u", "mirrored"), [(0.25, True), (0.75, False)])
def test_what_a_consistent_critic_should_not_mind(u, mirrored):
    """bCR's change: a mirror in every other image, then a translation; here two pixels right and one up of 16."""
    x = images(2, size=16)
    draw = Fixed(2, c_mirror=[u], c_translation=[0.9, 0.3])
    want = torch.zeros_like(x)
    want[..., :-1, 2:] = (x.flip(3) if mirrored else x)[..., 1:, :-2]
    assert torch.equal(Consistency.change(draw, "c", 1.0)(x), want)


@pytest.mark.parametrize("size", [8, 9])
def test_cutout_is_a_square_of_half_the_size(size):
    x = torch.ones(300, 1, size, size, dtype=torch.float64)
    holes = (ALL["diffaugment cutout"](SeededDraw(300), "augment", 1.0)(x) == 0).squeeze(1)
    heights, widths = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(heights * widths, holes.sum((1, 2)))  # a rectangle
    assert heights.max() == widths.max() == size // 2
    assert heights.min() >= size // 4 - 1  # cut by the border


def test_blits_are_exact_copies_of_pixels():
    """Turned by a quarter (u = 0.3: one of 0 to 3 quarters), mirrored or not: a rearrangement of the pixels."""
    x = images(2)
    draw = Fixed(2, augment_blit=[0.0, 0.0, 1.0], augment_blit_sizes=[0.0, 0.3, 0.5, 0.5])
    turned = pipeline({"blit": 1.0})(draw, "augment", 0.5)(x)
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), rtol=1e-12, atol=1e-12)
    draw = Fixed(2, augment_blit=[0.0, 1.0, 1.0], augment_blit_sizes=[0.7, 0.3, 0.5, 0.5])
    mirrored = pipeline({"blit": 1.0})(draw, "augment", 0.5)(x)
    torch.testing.assert_close(mirrored, x.flip(3), rtol=1e-12, atol=1e-12)


def test_geometry_scales_about_the_middle():
    """z = 5: twice as large; a blob in the middle grows, and an image without structure stays."""
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    x[..., 6:10, 6:10] = 1
    draw = Fixed(1, uniform=0.5, augment_geometry=[1.0, 1.0, 0.0, 1.0, 1.0], augment_geometry_sizes=[5.0, 0, 0, 0])
    got = pipeline({"geometry": 1.0})(draw, "augment", 0.5)(x)
    assert got.sum().item() == pytest.approx(64)
    assert bool((got[..., 5:11, 5:11] == 1).all())
    assert bool((got[..., :3, :] == 0).all())


# --- the border ------------------------------------------------------------------------------------------------------


def placed(x: Tensor, scale: float, shift: tuple[float, float], interpolation: int, padding: int) -> Tensor:
    """``resampled`` with the pixel (j, i) of every image taken from ``scale`` times its place about the middle, and
    ``shift`` (right, down) pixels on.
    """
    right, down = (2 * pixels / x.shape[-1] for pixels in shift)
    matrix = torch.tensor([[scale, 0, right], [0, scale, down], [0, 0, 1]], dtype=torch.float64)
    return resampled(x, matrix.expand(len(x), 3, 3), interpolation, padding)


def padded_and_read(x: Tensor, scale: float, shift: tuple[float, float], mode: str) -> Tensor:
    """The same by numpy: padded by three times the image on each side, then read off linearly along each axis."""
    size = x.shape[-1]
    margin = 3 * size
    wide = numpy.pad(x.numpy(), [(0, 0), (0, 0), (margin, margin), (margin, margin)], mode=mode)
    middle, places = margin + (size - 1) / 2, numpy.arange(wide.shape[-1])
    columns, rows = (middle + scale * (numpy.arange(size) - (size - 1) / 2) + pixels for pixels in shift)
    wide = numpy.apply_along_axis(lambda line: numpy.interp(columns, places, line), 3, wide)
    return torch.from_numpy(numpy.apply_along_axis(lambda line: numpy.interp(rows, places, line), 2, wide))


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -3), (0.3, -2.6), (-9, 11.25)])
@pytest.mark.parametrize("scale", [1.0, -1.0, 0.7, 1.9])
@pytest.mark.parametrize("size", [2, 5, 8])
@pytest.mark.parametrize(("padding", "mode"), [(REFLECTION, "reflect"), (ZEROS, "constant")])
def test_beyond_the_border_as_numpy_pads(size, scale, shift, padding, mode):
    x = images(2, size=size)
    shift = tuple(pixels * size / 8 if pixels % 1 else pixels % (2 * size) for pixels in shift)
    got = placed(x, scale, shift, BILINEAR, padding)
    torch.testing.assert_close(got, padded_and_read(x, scale, shift, mode), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [5, 8, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_pixels_with_zeros_beyond_are_copies(size, dtype):
    """Bit for bit, whatever the shift: the nearest pixel of a place that is one up to rounding."""
    x = images(1, size=size).to(dtype)
    wide = numpy.pad(x.numpy(), [(0, 0), (0, 0), (size, size), (size, size)])
    for pixels in range(-size, size + 1):
        want = wide[:, :, size : 2 * size, size + pixels : 2 * size + pixels]
        assert torch.equal(placed(x, 1.0, (pixels, 0), NEAREST, ZEROS), torch.from_numpy(want))


@pytest.mark.parametrize("padding", [REFLECTION, ZEROS])
@pytest.mark.parametrize("interpolation", [BILINEAR, NEAREST])
def test_derivatives_beyond_the_border(interpolation, padding):
    x = images(2, 1, 4).requires_grad_()

    def transform(x: Tensor) -> Tensor:
        return placed(x, 1.7, (1.2, -0.4), interpolation, padding)

    assert torch.autograd.gradcheck(transform, (x,))
    assert torch.autograd.gradgradcheck(lambda x: transform(x).pow(3), (x,))


def colour_draw(happens: list[float], turns=(0.5, 0.5), sizes=(0.0, 0.0, 0.0)) -> Fixed:
    return Fixed(2, augment_colour=happens, augment_colour_turns=list(turns), augment_colour_sizes=list(sizes))


def changed(draw: Fixed, x: Tensor) -> Tensor:
    return pipeline({"colour": 1.0})(draw, "augment", 0.5)(x)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_contrast_and_luma_flip(channels):
    """(x + b) c with b = 0.2 · 0.5 and c = 2^(0.5 · 2); the luma flip mirrors the grey axis alone."""
    x = images(2, channels)
    bright = changed(colour_draw([0.0, 0.0, 1, 1, 1], sizes=(0.5, 2.0, 0.0)), x)
    torch.testing.assert_close(bright, 2 * (x + 0.1), rtol=1e-12, atol=1e-12)
    flipped = changed(colour_draw([1, 1, 0.0, 1, 1], turns=(0.7, 0.5)), x)
    torch.testing.assert_close(flipped.mean(1), -x.mean(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flipped - flipped.mean(1, True), x - x.mean(1, True), rtol=1e-12, atol=1e-12)


def test_hue_and_saturation_leave_grey_alone():
    """A third of a turn permutes red, green and blue; saturation 2^z scales what is not grey."""
    x = images(2)
    turned = changed(colour_draw([1, 1, 1, 0.0, 1], turns=(0.5, 0.5 + 1 / 3)), x)
    torch.testing.assert_close(turned, x.roll(1, 1), rtol=1e-12, atol=1e-12)
    vivid = changed(colour_draw([1, 1, 1, 1, 0.0], sizes=(0.0, 0.0, 1.0)), x)
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(vivid, grey + 2 * (x - grey), rtol=1e-12, atol=1e-12)


def test_rotation_turns_all_the_way():
    """The blob on the right is found at every angle, at its distance from the middle."""
    x = torch.zeros(200, 1, 17, 17, dtype=torch.float64)
    x[..., 8, 11] = 1  # its mirror image, beyond the border, is 13 from the middle: further than the corners
    n = len(x)

    class Turning(Fixed):
        def uniform(self, stream, shape=()):
            return SeededDraw(n).uniform(stream, shape) if stream.endswith("angles") else super().uniform(stream, shape)

    draw = Turning(n, augment_geometry=[0.0, 1.0, 1.0, 1.0, 1.0])
    seen = pipeline({"geometry": 1.0})(draw, "augment", 0.9)(x).squeeze(1)
    place = torch.arange(17, dtype=torch.float64) - 8
    mass = seen.sum((1, 2))
    down, right = (seen * place[:, None]).sum((1, 2)) / mass, (seen * place).sum((1, 2)) / mass
    assert ((down**2 + right**2).sqrt() - 3).abs().max() < 0.5
    quarters = (torch.atan2(down, right) / (math.pi / 2)).floor()
    assert set(quarters.tolist()) == {-2.0, -1.0, 0.0, 1.0}


# --- by name ---------------------------------------------------------------------------------------------------------


def test_by_name():
    assert augmentation("none", []) is None
    x = images(4)
    for name, policy, want in (
        ("diffaugment", [], "diffaugment"),
        ("ada", [], "ada"),
        ("scheduled", ["blit", "geometry", "colour:0.5", "cutout"], "r3gan"),
    ):
        assert name in NAMES
        got, expected = (a(SeededDraw(4), "augment", 0.7)(x) for a in (augmentation(name, policy), ALL[want]))
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("name", "policy", "words"),
    [
        ("diffaugment", ["color"], "'color' is unknown; valid are: colour, translation, cutout"),
        ("ada", ["bgc"], "'bgc' is unknown; valid are: blit, geometry, colour, cutout"),
        ("scheduled", ["colour:half"], "'half' is no number from 0 up"),
        ("scheduled", ["colour:-1"], "'-1' is no number from 0 up"),
        ("ada", ["blit", "colour:nan"], "'nan' is no number from 0 up"),
        ("ada", ["colour:inf"], "'inf' is no number from 0 up"),
    ],
)
def test_unknown_transforms(name, policy, words):
    with pytest.raises(ValueError, match=words):
        augmentation(name, policy)


@pytest.mark.parametrize(
    ("name", "policy", "moves"),
    [
        ("none", [], False), ("diffaugment", [], True), ("ada", [], True), ("diffaugment", ["colour"], False),
        ("diffaugment", ["translation"], True), ("scheduled", ["colour:0.5", "cutout"], False), ("ada", ["blit"], True),
    ],
)  # fmt: skip
def test_which_augmentations_move_pixels_about(name, policy, moves):
    assert resamples(name, policy) is moves
