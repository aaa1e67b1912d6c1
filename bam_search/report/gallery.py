"""A gallery of attention: a picture for each image and site, of the site's gain over the image.

Images go down, sites go across in the order in which the network comes to them.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb

from bam_search.report.page import document, paragraph

SIDE = 112
"""Pixels of the shorter side of a picture on the page."""
STRENGTH = 0.55
"""How much of an overlay is colour."""
READING = (
    "Gain is how much a site's attention amplifies a position: the norm over channels of what it "
    "gives back, by that of what it sees; 1 is left as it is. Each site has a scale of its own, "
    "from its least (dark) to its greatest gain (bright) over these images. A site whose gain does "
    "not vary over positions attends to channels alone. Later sites see coarser maps, and more of "
    "the image at each position."
)


def gallery(
    title: str, names: Sequence[str], pixels: np.ndarray, gains: Mapping[str, np.ndarray]
) -> str:
    """The page as HTML.

    `pixels` are (n, H, W, 3) uint8 with a name each, `gains` (n, h, w) by site in the order of the
    network.
    """
    scales = {site: (float(gain.min()), float(gain.max())) for site, gain in gains.items()}
    rows = ""
    for i, name in enumerate(names):
        pictures = [_picture(pixels[i], name)]
        for site, gain in gains.items():
            pictures.append(_site_picture(name, site, pixels[i], gain[i], scales[site]))
        rows += _row(pictures)
    head = f"<thead><tr><th>image</th>{_site_headings(scales)}</tr></thead>"
    table = f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'
    section = ("The gain of each site, site after site", table + paragraph(READING))
    return document(title, "", [section], plotlyjs="none")


def _site_headings(scales: Mapping[str, tuple[float, float]]) -> str:
    return "".join(
        f"<th>{html.escape(site)}<br>{low:.2f} to {high:.2f}</th>"
        for site, (low, high) in scales.items()
    )


def _row(pictures: Sequence[str]) -> str:
    cells = "".join(f"<td>{picture}</td>" for picture in pictures)
    return f"<tr>{cells}</tr>"


def _site_picture(
    name: str, site: str, pixels: np.ndarray, gain: np.ndarray, scale: tuple[float, float]
) -> str:
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


def _picture(pixels: np.ndarray, description: str) -> str:
    """An img element that carries the picture itself, enlarged by a whole factor to about SIDE."""
    factor = max(1, SIDE // min(pixels.shape[:2]))
    image = Image.fromarray(pixels)
    large = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(description)
    return f'<img alt="{text}" title="{text}" src="data:image/png;base64,{encoded}">'
