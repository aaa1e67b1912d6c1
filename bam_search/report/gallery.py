"""A gallery of attention: images down, sites across in the order in which the network comes to
them, each site's gain over the image.
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
    "Gain is how much a site's attention amplifies a position: the norm over channels of what it gives back, by that of what it sees; 1 is "
    "left as it is. Each site has a scale of its own, from its least (dark) to its greatest gain (bright) over these images. A site whose "
    "gain does not vary over positions attends to channels alone. Later sites see coarser maps, and more of the image at each position."
)


def gallery(
    title: str, names: Sequence[str], pixels: np.ndarray, gains: Mapping[str, np.ndarray]
) -> str:
    """The page: `pixels` are (n, H, W, 3) uint8, `gains` (n, h, w) by site in the order of the
    network.
    """
    scales = {site: (float(gain.min()), float(gain.max())) for site, gain in gains.items()}
    head = "".join(
        f"<th>{html.escape(site)}<br>{low:.2f} to {high:.2f}</th>"
        for site, (low, high) in scales.items()
    )
    rows = []
    for i, name in enumerate(names):
        cells = [_picture(pixels[i], name)]
        for site, gain in gains.items():
            spread = f"gain {gain[i].min():.2f} to {gain[i].max():.2f}"
            cells.append(
                _picture(overlay(pixels[i], gain[i], *scales[site]), f"{name}, {site}: {spread}")
            )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    table = f'<div class="scroll"><table><thead><tr><th>image</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    return document(
        title,
        "",
        [("The gain of each site, site after site", table + paragraph(READING))],
        plotlyjs="none",
    )


def overlay(pixels: np.ndarray, gain: np.ndarray, low: float, high: float) -> np.ndarray:
    """(H, W, 3) pixels and (h, w) gains -> (H, W, 3): the image, dimmed, with the gain's colour on
    it.
    """
    share = np.clip((gain - low) / (high - low) if high > low else np.zeros_like(gain), 0, 1)
    large = Image.fromarray(np.uint8(255 * share)).resize(
        pixels.shape[1::-1], Image.Resampling.BILINEAR
    )
    return ((1 - STRENGTH) * pixels + STRENGTH * COLOURS[np.asarray(large)]).astype(np.uint8)


def _colours() -> np.ndarray:
    return np.array(
        [
            unlabel_rgb(colour)
            for colour in sample_colorscale("Viridis", np.linspace(0, 1, 256).tolist())
        ]
    )


COLOURS = _colours()
"""(256, 3): the colours from the least gain to the greatest."""


def _picture(pixels: np.ndarray, what: str) -> str:
    factor = max(1, SIDE // min(pixels.shape[:2]))
    image = Image.fromarray(pixels)
    large = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    held = io.BytesIO()
    large.save(held, "PNG")
    source = base64.b64encode(held.getvalue()).decode()
    return f'<img alt="{html.escape(what)}" title="{html.escape(what)}" src="data:image/png;base64,{source}">'
