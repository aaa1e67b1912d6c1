"""Pictures of every kind become upright 8-bit colour of one size, and broken ones say why."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from bam_search.tasks.pictures.decode import (
    UnreadableImage,
    pixels_of,
    size_of,
)

COLOUR = (200, 100, 40)
GREY = 120


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def plain(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (30, 20), colour)  # type: ignore[arg-type]


def half_clear(mode: str, colour: tuple[int, ...]) -> Image.Image:
    """A picture whose left half is transparent black."""
    image = plain(mode, colour)
    image.paste((0,) * len(colour), (0, 0, 15, 20))
    return image


def clear_palette() -> Image.Image:
    image = plain("P", 1)
    image.putpalette([0, 0, 0, *COLOUR])
    image.paste(0, (0, 0, 15, 20))
    return image


def levels(dtype: type, level: float) -> Image.Image:
    return Image.fromarray(np.full((20, 30), level, dtype))


KINDS: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "colour": (lambda: encoded(plain("RGB", COLOUR)), COLOUR),
    "jpeg": (lambda: encoded(plain("RGB", COLOUR), "JPEG", quality=95), COLOUR),
    "webp": (lambda: encoded(plain("RGB", COLOUR), "WEBP", lossless=True), COLOUR),
    "grey": (lambda: encoded(plain("L", GREY)), (GREY,) * 3),
    "grey jpeg": (lambda: encoded(plain("L", GREY), "JPEG"), (GREY,) * 3),
    "one bit": (lambda: encoded(plain("1", 1)), (255,) * 3),
    "palette": (lambda: encoded(plain("RGB", COLOUR).convert("P", palette=1)), COLOUR),
    "gif": (lambda: encoded(plain("RGB", COLOUR), "GIF"), COLOUR),
    "cmyk": (lambda: encoded(plain("CMYK", (55, 155, 215, 0)), "TIFF"), COLOUR),
    "cmyk jpeg": (lambda: encoded(plain("CMYK", (55, 155, 215, 0)), "JPEG", quality=98), COLOUR),
    "opaque": (lambda: encoded(plain("RGBA", (*COLOUR, 255))), COLOUR),
    "grey with alpha": (lambda: encoded(plain("LA", (GREY, 255))), (GREY,) * 3),
    "16-bit png": (lambda: encoded(levels(np.uint16, 257 * GREY)), (GREY,) * 3),
    "16-bit tiff": (lambda: encoded(levels(np.uint16, 257 * GREY), "TIFF"), (GREY,) * 3),
    "32-bit tiff": (lambda: encoded(levels(np.int32, 257 * GREY), "TIFF"), (GREY,) * 3),
    "floats to 1": (lambda: encoded(levels(np.float32, GREY / 255), "TIFF"), (GREY,) * 3),
    "floats to 255": (lambda: encoded(levels(np.float32, GREY), "TIFF"), (GREY,) * 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_colour_in_eight_bits(kind: str) -> None:
    make, colour = KINDS[kind]
    assert size_of(make()) == (20, 30)
    pixels = pixels_of(make(), 10, 12)
    assert pixels.shape == (10, 12, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - colour).max() <= 4


CLEAR: dict[str, Callable[[], bytes]] = {
    "alpha": lambda: encoded(half_clear("RGBA", (*COLOUR, 255))),
    "grey with alpha": lambda: encoded(half_clear("LA", (GREY, 255))),
    "palette": lambda: encoded(clear_palette(), transparency=0),
    "a transparent grey": lambda: encoded(half_clear("L", (GREY,)), transparency=0),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_what_is_transparent_is_white(kind: str) -> None:
    pixels = pixels_of(CLEAR[kind](), 20, 30)
    assert (pixels[:, :15] == 255).all()
    assert (pixels[:, 15:] < 250).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(form: str, orientation: int) -> None:
    """The upright picture is dark above, and bright below on the right."""
    upright = np.full((40, 60), 30, np.uint8)
    upright[20:, 30:] = 220
    to_stored: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda x: np.rot90(x, 1),
        7: lambda x: np.rot90(x, 2).T,
        8: lambda x: np.rot90(x, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(to_stored[orientation](upright)), form, exif=exif)
    assert size_of(content) == (40, 60)
    pixels = pixels_of(content, 20, 30)[..., 0].astype(int)
    assert np.abs(pixels[12:, 18:] - 220).max() < 8
    assert np.abs(pixels[:8] - 30).max() < 8
    assert np.abs(pixels[:, :12] - 30).max() < 8


@pytest.mark.parametrize(("height", "width"), [(20, 20), (10, 40), (40, 10), (80, 90)])
def test_the_middle_is_kept_in_its_proportions(height: int, width: int) -> None:
    y, x = np.mgrid[0:80, 0:120]
    image = Image.fromarray(np.stack([y, x, 0 * x], 2).astype(np.uint8))
    pixels = pixels_of(encoded(image), height, width).astype(float)
    scale = min(80 / height, 120 / width)
    for channel, axis, given in ((0, 0, 80), (1, 1, 120)):
        profile = pixels[..., channel].mean(1 - axis)
        wanted = (given - scale * len(profile)) / 2 + scale * (np.arange(len(profile)) + 0.5) - 0.5
        inner = slice(2, -2)
        assert np.abs(profile - wanted)[inner].max() < 1


def test_a_jpeg_of_reduced_scale_is_as_sharp() -> None:
    """Decoded at half its scale or wholly, a picture has nearly the same pixels and edges."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    image = noise.resize((224, 224), Image.Resampling.BICUBIC)
    reduced = pixels_of(encoded(image, "JPEG", quality=95), 73, 73).astype(float)
    whole = pixels_of(encoded(image), 73, 73).astype(float)

    def edges(pixels: np.ndarray) -> float:
        return float(np.abs(np.diff(pixels, axis=1)).mean())

    assert edges(reduced) > 0.93 * edges(whole)
    assert np.abs(reduced - whole).mean() < 4


def noisy() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (60, 60), dtype=np.uint8))


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it is empty"),
    "text": (lambda: b"GIF? no", "Pillow knows no picture of this form"),
    "cut off": (lambda: encoded(noisy(), "JPEG")[:2000], "image file is truncated"),
    "cut off png": (lambda: encoded(noisy())[:2000], "image file is truncated"),
    "not a number": (
        lambda: encoded(levels(np.float32, np.nan), "TIFF"),
        "its grey levels go from nan to nan",
    ),
    "negative": (lambda: encoded(levels(np.int32, -7), "TIFF"), "levels go from -7 to -7"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_picture_says_why(what: str) -> None:
    make, message = BROKEN[what]
    with pytest.raises(UnreadableImage, match=message):
        pixels_of(make(), 8, 8)
