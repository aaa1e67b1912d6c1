"""`maps`: where on a sample a trained candidate's attention amplifies, site after site."""

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from bam_search.cli.candidate import Setup, find, setup
from bam_search.errors import UserError
from bam_search.files import write
from bam_search.model.attention_gain import attention_gains
from bam_search.model.weights import load_weights
from bam_search.report.gallery import gallery
from bam_search.tasks.task import Gallery

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def show(
    folder: Path,
    tag: str,
    weights: Path,
    source: str | None,
    pictures: Path | None,
    count: int,
    modules: Mapping[str, str],
    device: str,
    out: Path,
) -> None:
    """Write a page of the attention gains of the candidate `tag` to `out`.

    It shows `count` test samples from all over the test set, which may be in the order of its
    classes, or as many of the folder `pictures` if that is given.
    `modules` says where modules of the user's lie now.

    Raises UserError.
    """
    candidate = find(folder, tag, modules)
    how = setup(folder, source, device)
    if candidate.record.placement == "none":
        raise UserError(f"candidate {tag} has no attention", "choose another one")
    if pictures:
        shown = _user_pictures(pictures, _size(candidate.space.input_shape), count)
        samples, captions = how.task.from_pictures(shown.pixels), list(shown.captions)
    else:
        test = how.parts.test
        index = np.unique(np.linspace(0, len(test) - 1, count).round().astype(np.int64))
        samples = test.take(index)
        shown = how.task.gallery(samples)
        captions = _captions(shown, how, index)
    net = candidate.net(how.seed)
    load_weights(net, weights)
    net.to(how.device.type).eval()
    context = how.context
    with torch.inference_mode():
        inputs = context.data.inputs(samples)
        gains = attention_gains(net, lambda: context.model(net)(inputs))
    gain_maps = {site: _flat(gain.cpu().numpy()) for site, gain in gains.items()}
    title = f"Attention of #{tag}, {candidate.record.placement}"
    write(out, gallery(title, how.task.sample, captions, shown.pixels, gain_maps))
    click.echo(f"maps: {out}")


def _flat(gain: np.ndarray) -> np.ndarray:
    """Return (n, h, w): a sequence's gain is one row, that of a volume its mean over the depth."""
    if gain.ndim == 2:
        return gain[:, None]
    return gain.mean(1) if gain.ndim == 4 else gain


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the (width, height) of pictures of this shape. Raises UserError for other inputs."""
    if len(shape) != 3:
        raise UserError(
            f"pictures are no inputs of shape {shape}", "leave --images out: it shows test samples"
        )
    return shape[2], shape[1]


def _captions(shown: Gallery, how: Setup, index: np.ndarray) -> list[str]:
    """Return the captions of the test samples at `index`: the task's own, or their classes."""
    if shown.captions:
        return list(shown.captions)
    names, numbers = how.data.classes, index.tolist()
    captions = [f"test {how.task.sample} {number}" for number in numbers]
    return [
        f"{caption}: {names[label]}" if names else f"{caption}: class {label}"
        for caption, label in zip(captions, shown.labels, strict=True)
    ]


def _user_pictures(folder: Path, size: tuple[int, int], count: int) -> Gallery:
    """Return the first `count` pictures in a folder, with their names.

    They are scaled, and cropped in the middle, to `size`, which is (width, height).

    Raises UserError if there are none, or if one cannot be read.
    """
    pictures = [path for path in folder.glob("*") if path.suffix.lower() in PICTURES]
    paths = sorted(pictures)[:count]
    if not paths:
        raise UserError(
            f"there are no pictures in {folder}", f"it is looked for {', '.join(PICTURES)}"
        )
    pixels = []
    for path in paths:
        try:
            image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            pixels.append(np.asarray(ImageOps.fit(image, size)))
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"{path} cannot be read as a picture: {error}") from None
    return Gallery(np.stack(pixels), [path.name for path in paths])
