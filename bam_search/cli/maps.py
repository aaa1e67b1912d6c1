"""`maps`: where on an image a trained candidate's attention amplifies, site after site."""

from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from bam_search.cli.candidate import find, load_weights, setup
from bam_search.errors import UserError
from bam_search.files import write
from bam_search.model.attention_gain import attention_gains
from bam_search.report.gallery import gallery

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def show(
    folder: Path,
    tag: str,
    weights: Path,
    source: str,
    pictures: Path | None,
    count: int,
    device: str,
    out: Path,
) -> None:
    """Write a page of the gains of the candidate `tag` on `count` test images, or on the `pictures`
    of a folder. Raises UserError.
    """
    candidate, how = find(folder, tag), setup(folder, source, device)
    if candidate.record.placement == "none":
        raise UserError(f"candidate {tag} has no attention", "choose another one")
    height, width = candidate.space.input_shape[1:]
    names, pixels = (
        _own(pictures, (width, height), count) if pictures else _test(how.parts.test.x[:count])
    )
    net = candidate.net(how.seed)
    load_weights(net, weights)
    net.to(how.device.type).eval()
    context = how.context
    with torch.inference_mode():
        found = attention_gains(
            net, lambda: context.forward(net, torch.from_numpy(pixels).to(how.device.type))
        )
    title = f"Attention of #{tag}, {candidate.record.placement}"
    write(
        out,
        gallery(title, names, pixels, {site: gain.cpu().numpy() for site, gain in found.items()}),
    )
    click.echo(f"maps: {out}")


def _test(pixels: np.ndarray) -> tuple[list[str], np.ndarray]:
    return [f"test image {i}" for i in range(len(pixels))], np.ascontiguousarray(pixels)


def _own(folder: Path, size: tuple[int, int], count: int) -> tuple[list[str], np.ndarray]:
    """The names and (n, H, W, 3) pixels of the first pictures in a folder, cropped in the middle to
    the model's shape.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)[:count]
    if not paths:
        raise UserError(
            f"there are no pictures in {folder}", f"it is looked for {', '.join(PICTURES)}"
        )
    found = []
    for path in paths:
        try:
            found.append(np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), size)))
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"{path} cannot be read as a picture: {error}") from None
    return [path.name for path in paths], np.stack(found)
