"""The gallery of attention: what its pictures show."""

import base64
import io
import re

import numpy as np
from PIL import Image

from bam_search.report.gallery import COLOURS, LARGEST, MANY, SIDE, STRENGTH, gallery, overlay

ATTACK = '"><script>alert(1)</script>'


def test_an_overlay_is_the_image_and_the_gains_colour() -> None:
    pixels = np.full((4, 4, 3), 100, dtype=np.uint8)
    gain = np.repeat(np.repeat(np.array([[1.0, 2.0], [1.0, 2.0]]), 2, 0), 2, 1)
    found = overlay(pixels, gain, 1.0, 2.0)
    assert found.shape == (4, 4, 3)
    for column, colour in ((0, COLOURS[0]), (3, COLOURS[255])):
        np.testing.assert_allclose(
            found[0, column], (1 - STRENGTH) * 100 + STRENGTH * colour, atol=1
        )
    flat = overlay(pixels, np.ones((2, 2)), 1.0, 1.0)  # a gain that does not vary
    assert (flat == flat[0, 0]).all()


def test_the_page_has_each_image_under_each_site() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    gains = {"layer1": np.full((2, 4, 4), 1.25), ATTACK: np.linspace(1, 2, 8).reshape(2, 2, 2)}
    page = gallery(ATTACK, "picture", ["one", ATTACK], pixels, gains)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 2 * (1 + 2)
    first = Image.open(io.BytesIO(base64.b64decode(pictures[0])))
    assert first.size == (SIDE, SIDE)
    assert np.array_equal(np.asarray(first)[:: SIDE // 8, :: SIDE // 8], pixels[0])
    assert "<script>alert" not in page
    assert "layer1<br>1.25 to 1.25" in page
    assert "one, layer1: gain 1.25 to 1.25" in page
    assert "plotly" not in page


def test_photographs_are_shown_at_their_size_and_many_or_large_ones_smaller() -> None:
    def sizes(n: int, height: int, width: int) -> set[tuple[int, int]]:
        pixels = np.zeros((n, height, width, 3), dtype=np.uint8)
        page = gallery("t", "image", ["x"] * n, pixels, {"layer1": np.ones((n, 2, 2))})
        found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
        assert len(found) == 2 * n
        return {Image.open(io.BytesIO(base64.b64decode(one))).size for one in found}

    assert sizes(2, 160, 200) == {(200, 160)}
    assert sizes(2, 2 * LARGEST, 4 * LARGEST) == {(2 * LARGEST, LARGEST)}
    assert sizes(MANY // 2, LARGEST, LARGEST) == {(SIDE, SIDE)}
