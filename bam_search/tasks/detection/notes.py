"""Lines about annotated pictures that a dry run and the first lines of a study tell."""

from collections.abc import Iterator, Sequence

import numpy as np

from bam_search.tasks.detection.annotated import Annotated
from bam_search.tasks.pictures.sizes import Size, text, whole_sizes
from bam_search.words import counted

UNEVEN = 2
"""How many times the objects of the rarest class the most frequent may have without a word."""
NAMED = 3
"""How many classes a line names."""
TINY = 4
"""Pixels of the shorter side below which an object has hardly a form."""
PADDED = 0.05
"""The share of padding from which on it is told."""


def object_notes(
    data: Annotated, train: np.ndarray, test: np.ndarray, classes: Sequence[str]
) -> Iterator[str]:
    """Yield lines about objects: how many there are, rare classes, and those to ignore."""
    per_picture = np.diff(data.offsets)[train]
    yield (
        f"a training picture has {per_picture.mean():.3g} objects on average, "
        f"{per_picture.max():,} at most"
    )
    counts = _counts(data, train, classes)
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[most] > UNEVEN * counts[least]:
        yield (
            f"classes are uneven: {classes[most]} has {counts[most]:,} training objects, "
            f"{classes[least]} has {counts[least]:,}"
        )
    for part, index in (("training", train), ("test", test)):
        yield from _part_notes(data, index, part, classes)


def _part_notes(
    data: Annotated, index: np.ndarray, part: str, classes: Sequence[str]
) -> Iterator[str]:
    """Yield lines about one part: pictures without objects, what is ignored, classes it lacks."""
    empty = int((np.diff(data.offsets)[index] == 0).sum())
    if empty:
        yield f"{counted(empty, f'{part} picture')} without objects: what is found there is wrong"
    ignored = int(data.ignore[data.objects(index)].sum())
    if ignored:
        yield (
            f"{counted(ignored, f'{part} object')} marked as difficult or a crowd: "
            "neither learned nor missed"
        )
    counts = _counts(data, index, classes)
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if missing:
        more = ", ..." if len(missing) > NAMED else ""
        yield f"no {part} picture has an object of {', '.join(missing[:NAMED])}{more}"


def _counts(data: Annotated, index: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """How many objects of each class the pictures at `index` have, without those to ignore."""
    objects = data.objects(index)
    labels = data.labels[objects][~data.ignore[objects]]
    return np.bincount(labels, minlength=len(classes) + 1)[1:]


def scale_notes(data: Annotated, sizes: np.ndarray, index: np.ndarray, size: Size) -> Iterator[str]:
    """Yield lines about what the working size `size` makes of the pictures at `index`.

    `sizes` are the height and width of all pictures, (N, 2).
    """
    content = whole_sizes(sizes[index], size)
    padding = 1 - content.prod(1).mean() / np.prod(size)
    if padding > PADDED:
        yield (
            f"{padding:.0%} of the pixels at {text(size)} are padding, as pictures keep their "
            "form: data.size sets another size"
        )
    objects = data.objects(index)
    scale = np.repeat(content[:, 0] / sizes[index, 0], np.diff(data.offsets)[index])
    sides = (data.boxes[objects, 2:] - data.boxes[objects, :2]).min(1)
    tiny = int((sides * scale < TINY).sum())
    if tiny:
        yield (
            f"{tiny:,} of {counted(len(objects), 'object')} are less than {TINY} px high or wide "
            f"at this size: a larger data.size shows more of them"
        )
