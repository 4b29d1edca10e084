"""From the bytes of an image file to its pixels: upright, opaque, 8 bits."""

import contextlib
import io
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from utils.data.files import Files, reason
from utils.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
DEEP = ("I", "F")  # how Pillow's names of modes with more than 8 bits begin
ORIENTATION = 0x0112  # EXIF's number for how the camera was held; from 5 on on its side
LEVEL_16 = 257  # 65,535 / 255


class Header(NamedTuple):
    """What the first bytes of a file say: Pillow's mode, width and height as shown, whether pixels are transparent."""

    mode: str
    width: int
    height: int
    transparent: bool


def read_header(files: Files, name: str) -> Header | None:
    """The header of a file; None if Pillow finds no image in it. Raises UserError if its bytes cannot be read."""
    from PIL import Image  # here for a fast start-up

    try:
        with files.open(files.root, name) as file:
            image = Image.open(file, formats=FORMATS)
            (width, height), orientation = image.size, 1
            with contextlib.suppress(SyntaxError):  # Pillow's error for EXIF data that cannot be read
                orientation = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
            if orientation >= 5:
                width, height = height, width
            return Header(image.mode, width, height, image.has_transparency_data)
    except Exception as error:  # Pillow and zipfile raise OSError, SyntaxError, zlib.error and more
        if isinstance(error, zipfile.BadZipFile | zlib.error) or getattr(error, "errno", None):
            raise UserError(
                f"The image '{name}' in '{files.root}' cannot be read ({reason(error)}); replace or remove it."
            ) from error
        return None


def open_image(files: Files, name: str, background: Any = "black") -> "Image.Image":
    """Decode a file in full, so that a truncated one is found: its first frame, in Pillow's mode L or RGB.

    It is turned upright as its EXIF data say, transparent pixels show the ``background`` (``rgb``), and 16 bits a
    pixel become 8: v / 257, rounded. Pillow itself reads colours of 16 bits with their upper 8. Raises UserError if it
    cannot be decoded or has more than 16 bits a pixel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # here for a fast start-up

    try:
        image = Image.open(io.BytesIO(files.read(name)), formats=FORMATS)
        image.load()
        with contextlib.suppress(SyntaxError):  # Pillow's error for EXIF data that cannot be read
            image = ImageOps.exif_transpose(image)
        if not image.mode.startswith(DEEP):
            return _opaque(image, background)
    except Exception as error:  # Pillow and zipfile raise OSError, SyntaxError, zlib.error and more
        # Pillow's own sentence would name a BytesIO object, not the file.
        unknown = isinstance(error, UnidentifiedImageError)
        why = f"no {' or '.join(FORMATS)} file" if unknown else reason(error)
        raise UserError(
            f"The image '{name}' in '{files.root}' cannot be decoded ({why}); replace or remove it."
        ) from error
    level = numpy.asarray(image)
    if image.mode == "F" or level.min() < 0 or level.max() > 65535:
        raise UserError(
            f"The image '{name}' in '{files.root}' has more than 16 bits a pixel; convert it to 8 or 16 bits."
        )
    return Image.fromarray(numpy.rint(level / LEVEL_16).astype(numpy.uint8))


def is_gray(header: Header, background: Any) -> bool:
    """Whether an image has no colours once its transparent pixels show the ``background``."""
    plain = header.mode in ("1", "L", "LA", "La") or header.mode.startswith(DEEP)
    return plain and (not header.transparent or len(set(rgb(background))) == 1)


def rgb(background: Any) -> tuple[int, int, int]:
    """``data.background`` as red, green and blue from 0 to 255: a name, a gray level or three numbers.

    Raises ValueError for anything else.
    """
    if background in ("black", "white"):  # the usual ones need no Pillow, for a fast start-up
        return (0, 0, 0) if background == "black" else (255, 255, 255)
    if isinstance(background, str):
        from PIL import ImageColor

        return ImageColor.getrgb(background)[:3]
    levels = [background] * 3 if isinstance(background, int) else list(background)
    if len(levels) != 3 or not all(isinstance(level, int) and 0 <= level <= 255 for level in levels):
        raise ValueError(f"{background} is no colour")
    return tuple(levels)


def _opaque(image: "Image.Image", background: Any) -> "Image.Image":
    """An image over the ``background``, in mode L where it has no colours, else in RGB."""
    from PIL import Image

    header = Header(image.mode, *image.size, image.has_transparency_data)
    mode = "L" if is_gray(header, background) else "RGB"
    if not header.transparent:
        return image.convert(mode)
    pixels = numpy.asarray(image.convert("RGBA")).astype(float)
    alpha = pixels[..., 3:] / 255
    mixed = alpha * pixels[..., :3] + (1 - alpha) * numpy.array(rgb(background))
    return Image.fromarray(numpy.rint(mixed).astype(numpy.uint8)).convert(mode)
