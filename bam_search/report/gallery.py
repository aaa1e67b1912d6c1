"""A gallery of attention: a picture for each sample and site, of the site's gain over it.

Samples go down, sites go across in the order in which the network comes to them.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb

from bam_search.report.render import render

SIDE = 112
"""Pixels of the shorter side to which smaller pictures are enlarged, and many are made smaller."""
LARGEST = 224
"""Pixels of the shorter side to which larger pictures are made smaller, if they are few."""
MANY = 100
"""So many pictures are at most SIDE large, so that a page can be sent around."""
STRENGTH = 0.55
"""How much of an overlay is colour."""


@dataclass(frozen=True)
class Picture:
    """A picture on the page: its own address, which carries it, and what it shows."""

    source: str
    text: str


def gallery(
    title: str,
    sample: str,
    names: Sequence[str],
    pixels: np.ndarray,
    gains: Mapping[str, np.ndarray],
) -> str:
    """The page as HTML; `sample` is what one of the pictures is of, "image" for example.

    `pixels` are (n, H, W, 3) uint8 with a name each, `gains` (n, h, w) by site in the order of the
    network.
    """
    scales = {site: (float(gain.min()), float(gain.max())) for site, gain in gains.items()}
    largest = SIDE if len(names) * (1 + len(gains)) >= MANY else LARGEST
    rows = []
    for i, name in enumerate(names):
        pictures = [_picture(pixels[i], name, largest)]
        for site, gain in gains.items():
            coloured = overlay(pixels[i], gain[i], *scales[site])
            spread = f"gain {gain[i].min():.2f} to {gain[i].max():.2f}"
            pictures.append(_picture(coloured, f"{name}, {site}: {spread}", largest))
        rows.append((name, pictures))
    return render("gallery.html", "none", title, sample=sample, scales=scales, rows=rows)


def overlay(pixels: np.ndarray, gain: np.ndarray, low: float, high: float) -> np.ndarray:
    """The image, dimmed, with the colour of the gain on it: (H, W, 3) uint8.

    `pixels` are (H, W, 3) uint8, `gain` is (h, w); `low` has the least colour, `high` the greatest.
    """
    share = np.zeros_like(gain)
    if high > low:
        share = np.clip((gain - low) / (high - low), 0, 1)
    levels = Image.fromarray(np.uint8(255 * share))
    large = levels.resize(pixels.shape[1::-1], Image.Resampling.BILINEAR)
    colours = COLOURS[np.asarray(large)]
    return ((1 - STRENGTH) * pixels + STRENGTH * colours).astype(np.uint8)


def _colours() -> np.ndarray:
    names = sample_colorscale("Viridis", np.linspace(0, 1, 256).tolist())
    return np.array([unlabel_rgb(name) for name in names])


COLOURS = _colours()
"""(256, 3): the colours from the least gain to the greatest."""


def _picture(pixels: np.ndarray, text: str, largest: int) -> Picture:
    """The picture, a small one enlarged by a whole factor to about SIDE, else at most `largest`."""
    image = Image.fromarray(pixels)
    shorter = min(image.size)
    factor = max(1, round(SIDE / shorter))
    if factor > 1:
        size = (image.width * factor, image.height * factor)
        return Picture(_address(image.resize(size, Image.Resampling.NEAREST), "PNG"), text)
    share = min(1.0, largest / shorter)
    size = (round(share * image.width), round(share * image.height))
    return Picture(_address(image.resize(size, Image.Resampling.LANCZOS), "JPEG"), text)


def _address(image: Image.Image, form: str) -> str:
    """The address that carries the picture: PNG for large pixels, JPEG for photographs."""
    buffer = io.BytesIO()
    image.save(buffer, form, quality=90)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{encoded}"
