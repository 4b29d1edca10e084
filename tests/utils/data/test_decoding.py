"""From files to pixels: transparency, 16 bits, and every format whose suffix is read."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.utils.data.helpers import png
from utils.data.datasets import load
from utils.data.decoding import open_image, read_header, rgb
from utils.data.files import SUFFIXES, Files
from utils.data.image_files import OwnImages
from utils.errors import UserError

RED, GREEN, MAGENTA = (255, 0, 0), (0, 255, 0), (255, 0, 255)
WHITE = (255, 255, 255)


def read(content: bytes, background="black") -> Image.Image:
    return open_image(Files("root", ["a"], lambda root, name: io.BytesIO(content)), "a", background)


def rgba(inside: tuple, outside: tuple) -> bytes:
    """8x8 pixels: a square of 4x4 in the middle."""
    image = Image.new("RGBA", (8, 8), outside)
    image.paste(inside, (2, 2, 6, 6))
    return png(image)


def palette() -> bytes:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*GREEN, *MAGENTA])
    image.paste(0, (2, 2, 6, 6))
    return png(image, transparency=1)


def colour_key() -> bytes:
    """An image without alpha, one colour of which counts as transparent."""
    image = Image.new("RGB", (8, 8), MAGENTA)
    image.paste(GREEN, (2, 2, 6, 6))
    return png(image, transparency=MAGENTA)


@pytest.mark.parametrize(
    ("content", "background", "inside", "outside"),
    [
        (rgba((*GREEN, 255), (*RED, 0)), "black", GREEN, (0, 0, 0)),
        (rgba((*GREEN, 255), (*RED, 0)), "white", GREEN, WHITE),
        (rgba((*GREEN, 255), (*RED, 0)), 200, GREEN, (200, 200, 200)),
        (rgba((*GREEN, 255), (*RED, 0)), [1, 2, 3], GREEN, (1, 2, 3)),
        (rgba((*GREEN, 128), (*RED, 0)), "black", (0, 128, 0), (0, 0, 0)),
        (rgba((*GREEN, 128), (*RED, 0)), "white", (127, 255, 127), WHITE),
        (palette(), "black", GREEN, (0, 0, 0)),
        (palette(), "white", GREEN, WHITE),
        (colour_key(), "white", GREEN, WHITE),
    ],
)
def test_transparent_pixels_show_the_background(content, background, inside, outside):
    image = read(content, background)
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == outside
    assert image.getpixel((3, 3)) == inside


def test_hidden_grays_show_the_background():
    hidden = np.full((8, 8, 2), 90, dtype=np.uint8)
    hidden[..., 1] = 0
    hidden[2:6, 2:6] = (50, 255)
    content = png(Image.fromarray(hidden, "LA"))
    for background, mode, outside in (("black", "L", 0), ("white", "L", 255), ("red", "RGB", RED)):
        image = read(content, background)
        assert (image.mode, image.getpixel((0, 0))) == (mode, outside)
    assert read(content).getpixel((3, 3)) == 50


@pytest.mark.parametrize("suffix", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_become_eight(suffix):
    level = np.tile(np.array([0, 128, 129, 256, 32768, 65535], dtype=np.uint16), (4, 1))
    file = io.BytesIO()
    Image.fromarray(level).save(file, suffix)
    image = read(file.getvalue())
    assert image.mode == "L"
    assert np.array(image)[0].tolist() == [0, 0, 1, 1, 128, 255]  # v / 257, rounded: 129 is nearer to 257 than to 0


@pytest.mark.parametrize("level", [np.float32(0.5), np.int32(70_000)])
def test_more_than_sixteen_bits_are_refused(level):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), level)).save(file, "TIFF")
    with pytest.raises(UserError, match="'a' in 'root' has more than 16 bits a pixel"):
        read(file.getvalue())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read(tmp_path, suffix):
    image = Image.new("RGB", (16, 16), (200, 40, 90))
    image = {".pgm": image.convert("L"), ".pbm": image.convert("1")}.get(suffix, image)
    image.save(tmp_path / f"0{suffix}", {".jfif": "JPEG"}.get(suffix))
    config = OwnImages("folder", root=str(tmp_path), resolution=16)
    x = load(config, 0).train.x[0]
    want = torch.from_numpy(np.array(image.convert("RGB" if len(x) == 3 else "L"))).reshape(16, 16, -1).permute(2, 0, 1)
    assert (x.float() - want).abs().max() < 6


def test_the_first_frame_of_a_gif_is_read():
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in (GREEN, RED)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert read(file.getvalue()).getpixel((0, 0)) == GREEN


def test_a_header_has_the_size_as_shown():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    content = png(Image.new("L", (16, 8)), exif=exif)
    header = read_header(Files("root", ["a"], lambda root, name: io.BytesIO(content)), "a")
    assert header == ("L", 8, 16, False)
    assert read(content).size == (8, 16)


@pytest.mark.parametrize("background", ["whitish", -1, 256, [1, 2], [1, 2, 300], [1, 2, 0.5]])
def test_what_is_no_colour_is_refused(background):
    with pytest.raises((ValueError, TypeError)):
        rgb(background)
