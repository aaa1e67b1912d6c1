"""One picture: from its encoded bytes to pixels of a wanted size. Knows no file and no cache.

Pillow decodes. A JPEG is decoded at a reduced scale where at least `DRAFT` times the wanted size is
left. Pictures are turned as EXIF says, transparent pixels are white, 16 bits become 8.
"""

import io
import math

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from bam_search.errors import first_line

DRAFT = 1.5
"""How many times the wanted size a JPEG is decoded at, at least."""
TURNED = (5, 6, 7, 8)
"""The orientations of EXIF in which height and width change places."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each orientation upright."""


class UnreadableImage(Exception):
    """A picture that cannot be decoded; its message says why."""


def size_of(content: bytes) -> tuple[int, int]:
    """(height, width) of an encoded picture, upright, from its header. Raises UnreadableImage."""
    try:
        return upright_size(_opened(content))
    except Exception as error:  # Pillow raises anything for a broken file
        raise _said(error) from None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of a picture, upright."""
    width, height = image.size
    return (width, height) if _orientation(image) in TURNED else (height, width)


def pixels_of(content: bytes, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: an encoded picture, scaled to cover that and cut to its middle.

    Raises UnreadableImage.
    """
    try:
        return scaled(_opened(content), height, width)
    except Exception as error:  # Pillow raises anything for a broken file
        raise _said(error) from None


def scaled(image: Image.Image, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a picture, upright, scaled to cover that and cut to its middle.

    Scaling is bilinear and antialiased. Raises what Pillow raises if it cannot be decoded.
    """
    orientation = _orientation(image)
    side = (height, width) if orientation in TURNED else (width, height)
    cover = DRAFT * max(wanted / given for wanted, given in zip(side, image.size, strict=True))
    if cover < 1:
        image.draft(None, (math.ceil(cover * image.size[0]), math.ceil(cover * image.size[1])))
    plain = _plain(image)
    plain = plain.resize(side, Image.Resampling.BILINEAR, _middle(plain.size, side), 3.0)
    if orientation in TURNS:
        plain = plain.transpose(TURNS[orientation])
    return np.asarray(plain if plain.mode == "RGB" else plain.convert("RGB"))


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise UnreadableImage("it is empty")
    return Image.open(io.BytesIO(content))


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # Pillow makes it upright itself
        return 1
    # A PNG's own method decodes it first, to look for EXIF data behind the pixels.
    return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))


def _middle(given: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest box of the wanted proportions in the middle of a picture, (width, height)."""
    scale = min(given[0] / wanted[0], given[1] / wanted[1])
    left, top = ((have - scale * want) / 2 for have, want in zip(given, wanted, strict=True))
    return max(0.0, left), max(0.0, top), given[0] - max(0.0, left), given[1] - max(0.0, top)


def _plain(image: Image.Image) -> Image.Image:
    """The picture, decoded, in 8 bits, grey ("L") or colour ("RGB"), without transparency."""
    image.load()
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.mode == "1":
        return image.convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert("RGBA")
    white = Image.new("RGBA", colours.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")


def _eight_bits(levels: np.ndarray) -> np.ndarray:
    """Grey levels of 0 to 65,535, or of 0 to 1 or to 255 in floats, as uint8."""
    lowest, highest = float(levels.min()), float(levels.max())
    if levels.dtype.kind == "f":
        top, factor = 255.0, 255.0 if highest <= 1 else 1.0
    else:
        top, factor = 65_535.0, 1 / 257
    if not (lowest >= 0 and highest <= top):  # not a number is neither
        raise UnreadableImage(f"its grey levels go from {lowest:g} to {highest:g}")
    return np.rint(levels * factor).astype(np.uint8)


def _said(error: Exception) -> UnreadableImage:
    if isinstance(error, UnreadableImage):
        return error
    if isinstance(error, UnidentifiedImageError):
        return UnreadableImage("Pillow knows no picture of this form")
    return UnreadableImage(first_line(error))
