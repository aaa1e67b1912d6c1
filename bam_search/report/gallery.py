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
"""Pixels of the shorter side of a picture on the page."""
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
    rows = []
    for i, name in enumerate(names):
        pictures = [_picture(pixels[i], name)]
        for site, gain in gains.items():
            pictures.append(_site_picture(name, site, pixels[i], gain[i], scales[site]))
        rows.append(pictures)
    return render("gallery.html", "none", title, sample=sample, scales=scales, rows=rows)


def _site_picture(
    name: str, site: str, pixels: np.ndarray, gain: np.ndarray, scale: tuple[float, float]
) -> Picture:
    spread = f"gain {gain.min():.2f} to {gain.max():.2f}"
    return _picture(overlay(pixels, gain, *scale), f"{name}, {site}: {spread}")


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


def _picture(pixels: np.ndarray, text: str) -> Picture:
    """The picture, enlarged by a whole factor to about SIDE."""
    factor = max(1, SIDE // min(pixels.shape[:2]))
    image = Image.fromarray(pixels)
    large = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/png;base64,{encoded}", text)
