"""The bilinear filter: constants, what it does to one pixel, types."""

import pytest
import torch

from models.resampling import Blur, Downsample, Upsample


@pytest.mark.parametrize("layer", [Upsample(), Downsample(), Blur(padding=2)], ids=lambda layer: type(layer).__name__)
def test_a_constant_image_stays_constant(layer):
    """Up to the border, beyond which the image counts as zero."""
    image = torch.tensor([-0.75, 0.5]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    inside = layer(image)[:, :, 2:-2, 2:-2]
    assert torch.equal(inside, image[:, :, :1, :1].expand_as(inside))


def test_upsampling_is_bilinear():
    """Inside, as ``interpolate`` has it; that one repeats the border instead of zeros."""
    x = torch.randn(2, 3, 6, 6)
    want = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(Upsample()(x)[:, :, 1:-1, 1:-1], want[:, :, 1:-1, 1:-1])


def test_downsampling_is_the_transpose_of_upsampling():
    """<up(x), y> = 4 <x, down(y)>: upsampling has a gain of 4 to make up for the zeros in between."""
    x, y = torch.randn(1, 2, 4, 4, dtype=torch.float64), torch.randn(1, 2, 8, 8, dtype=torch.float64)
    up, down = Upsample().double(), Downsample().double()
    assert (up(x) * y).sum().item() == pytest.approx(4 * (x * down(y)).sum().item(), rel=1e-12)


def test_smoothing_before_every_second_pixel_is_downsampling():
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(Blur(padding=1)(x)[:, :, ::2, ::2], Downsample()(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_result_has_the_type_of_the_input_under_autocast_too(dtype):
    x = torch.randn(1, 2, 4, 4, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Upsample()(x).dtype == Downsample()(x).dtype == dtype


def test_the_filter_is_no_part_of_a_checkpoint():
    assert Upsample().state_dict() == {}
