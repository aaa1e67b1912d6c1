"""The sizes of pictures in words, and lines about pictures that a dry run tells."""

from collections.abc import Iterator, Sequence

import numpy as np

from bam_search.words import counted

Size = tuple[int, int]
"""(H, W) in pixels."""


def text(size: Size) -> str:
    """'64x48', height first."""
    return f"{size[0]}x{size[1]}"


def size_of(sides: np.ndarray) -> Size:
    """(H, W) of a row of sizes."""
    height, width = map(int, sides)
    return height, width


def whole_sizes(sizes: np.ndarray, size: Size) -> np.ndarray:
    """(N, 2) int64: the height and width of pictures of `sizes`, scaled to lie inside `size`.

    They keep their form; the longer side fills `size`.
    """
    scale = (np.array(size) / sizes).min(1, keepdims=True)
    return np.maximum(1, np.rint(scale * sizes)).astype(np.int64)


def sizes_words(sizes: np.ndarray) -> str:
    """A line about the sizes of pictures, (N, 2): height and width."""
    by_area = sizes[np.argsort(sizes.astype(np.int64).prod(1), kind="stable")]
    least, most = (text(size_of(sides)) for sides in (by_area[0], by_area[-1]))
    if (sizes == sizes[0]).all():
        return f"all pictures are {least} px"
    middle = text(size_of(np.median(sizes, 0)))
    return f"pictures are {least} to {most} px, height x width; the median is {middle}"


def twice_notes(
    hashes: np.ndarray, names: Sequence[str], train: np.ndarray, test: np.ndarray
) -> Iterator[str]:
    """Yield a line about the pictures that train and test, if there are any.

    `hashes` are of the contents of all pictures, `names` their names; `train` and `test` the
    numbers of those in each part.
    """
    trained = {row.tobytes() for row in hashes[train]}
    twice = [names[i] for i in test if hashes[i].tobytes() in trained]
    if twice:
        verb = "is a training picture" if len(twice) == 1 else "are training pictures"
        pictures = counted(len(twice), "test picture")
        yield f"{pictures} {verb} too, byte for byte, such as {twice[0]}"
