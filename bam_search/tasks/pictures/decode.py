"""One picture: from its encoded bytes to pixels of a wanted size. Knows no file and no cache.

Pillow decodes, and torch scales, which takes a third of Pillow's time and differs by one level at
most. A JPEG is decoded at a reduced scale where at least `DRAFT` times the wanted size is left.
Pictures are turned as EXIF says, transparent pixels are white, 16 bits become 8.
"""

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch.nn import functional

from bam_search.errors import first_line
from bam_search.tasks.pictures.sizes import whole_sizes

DRAFT = 1.5
"""How many times the wanted size a JPEG is decoded at, at least."""
PADDING = (124, 116, 104)
"""The colour beside a picture that is kept whole: ImageNet's mean.

It is 0 for pretrained detectors of torchvision, as their own padding is, and near 0 once it is
normalised by the mean of photographs of one's own, in which the padding counts too.
"""
TURNED = (5, 6, 7, 8)
"""The orientations of EXIF in which height and width change places."""
TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: np.rot90,
}
"""What makes the pixels of each orientation upright."""


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


def pixels_of(content: bytes, height: int, width: int, whole: bool = False) -> np.ndarray:
    """(height, width, 3) uint8: an encoded picture, scaled to cover that and cut to its middle.

    With `whole` it is scaled to lie inside, in the upper left. Raises UnreadableImage.
    """
    try:
        image = _opened(content)
        return placed(image, height, width) if whole else scaled(image, height, width)
    except Exception as error:  # Pillow raises anything for a broken file
        raise _said(error) from None


def scaled(image: Image.Image, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a picture, upright, scaled to cover that and cut to its middle.

    Raises what Pillow raises if it cannot be decoded.
    """
    orientation = _orientation(image)
    side = (width, height) if orientation in TURNED else (height, width)
    return TURNS[orientation](resized(_decoded(image, side), *side))


def placed(image: Image.Image, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a picture, upright and whole, in the upper left; beside it PADDING.

    It has the size that `whole_sizes` says. Raises what Pillow raises if it cannot be decoded.
    """
    ((tall, wide),) = whole_sizes(np.array([upright_size(image)]), (height, width)).tolist()
    orientation = _orientation(image)
    side = (wide, tall) if orientation in TURNED else (tall, wide)
    framed = np.empty((height, width, 3), np.uint8)
    framed[:] = PADDING
    framed[:tall, :wide] = TURNS[orientation](_interpolated(_decoded(image, side), *side))
    return framed


def _decoded(image: Image.Image, side: tuple[int, int]) -> np.ndarray:
    """The picture's pixels, (H, W, 3) uint8, as stored: at least DRAFT times (height, width)."""
    given = image.size[::-1]
    cover = DRAFT * max(wanted / have for wanted, have in zip(side, given, strict=True))
    if cover < 1:
        image.draft(None, (math.ceil(cover * image.size[0]), math.ceil(cover * image.size[1])))
    plain = _plain(image)
    return np.array(plain if plain.mode == "RGB" else plain.convert("RGB"))


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: pixels (H, W, 3), scaled to cover that and cut to their middle.

    Scaling is bilinear and antialiased.
    """
    have = pixels.shape[:2]
    scale = min(have[0] / height, have[1] / width)
    tall, wide = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = (have[0] - tall) // 2, (have[1] - wide) // 2
    return _interpolated(pixels[top : top + tall, left : left + wide], height, width)


def _interpolated(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: all of the pixels (H, W, 3), scaled; themselves at that size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    # In this order of axes the kernel for bytes reads and writes pixels as they lie.
    batch = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
    smaller = functional.interpolate(batch, (height, width), mode="bilinear", antialias=True)
    return smaller[0].permute(1, 2, 0).numpy()


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise UnreadableImage("it is empty")
    return Image.open(io.BytesIO(content))


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # Pillow makes it upright itself
        return 1
    # A PNG's own method decodes it first, to look for EXIF data behind the pixels.
    orientation = int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    return orientation if orientation in TURNS else 1


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
