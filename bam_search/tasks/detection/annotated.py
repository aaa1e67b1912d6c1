"""What is annotated in pictures, in the pixels of each, whatever form the annotations had.

Boxes are checked here against the pictures. One without width or height is dropped, one that
reaches over the border is clipped, and both are told. One that lies outside is a mistake.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.detection.samples import objects_of, offsets_of, pictures_of
from bam_search.tasks.pictures.sizes import size_of, text
from bam_search.words import counted

NO_AREA = "no width or no height"
OVER = "over the border of the picture"
ROUNDING = 1.0
"""Pixels over the border that nobody is told of: tools count pixels from 0 or from 1."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """N pictures, in which M objects are annotated.

    Args:
        paths: of the pictures, below the data set's folder.
        places: where each one's annotations are, as a sentence has it.
        declared: (N, 2) int64: height and width as the annotations say; 0 where they do not.
        boxes: (M, 4) float64: x1, y1, x2, y2 in the picture's pixels.
        labels: (M,) int64: the class, from 1.
        ignore: (M,) bool: a crowd, or difficult.
        names: what each object is called within its picture, as "object 3".
        offsets: (N + 1,) int64: the objects of picture i are `offsets[i]` to `offsets[i + 1] - 1`.
    """

    paths: Sequence[str]
    places: Sequence[str]
    declared: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    names: Sequence[str]
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def picture(self) -> np.ndarray:
        """(M,) int64: the number of the picture of each object."""
        return pictures_of(self.offsets)

    def place(self, number: int) -> str:
        """Where the object of this number is annotated."""
        return f"{self.places[int(self.picture[number])]}, {self.names[number]}"

    def keep(self, kept: np.ndarray) -> "Annotated":
        """All pictures, with the objects where `kept`, (M,) bool, says so."""
        counts = np.bincount(self.picture[kept], minlength=len(self))
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            ignore=self.ignore[kept],
            names=[name for name, one in zip(self.names, kept.tolist(), strict=True) if one],
            offsets=offsets_of(counts),
        )

    def objects(self, index: np.ndarray) -> np.ndarray:
        """(m,) int64: the numbers of the objects of the pictures at `index`."""
        return objects_of(self.offsets, index)[0]


@dataclass(frozen=True, eq=False)
class Found:
    """The annotated pictures of a data set.

    The first `train` pictures are the training part, the others the test part, if the data set has
    one; `parts` says in words what they are. `classes` are the names of the labels, from 1.
    """

    data: Annotated
    train: int
    classes: tuple[str, ...]
    parts: str
    notes: tuple[str, ...] = ()


def joined(tables: Sequence[Annotated]) -> Annotated:
    """Some annotated pictures, and after them the next ones."""
    return Annotated(
        [path for table in tables for path in table.paths],
        [place for table in tables for place in table.places],
        np.concatenate([table.declared for table in tables]),
        np.concatenate([table.boxes for table in tables]),
        np.concatenate([table.labels for table in tables]),
        np.concatenate([table.ignore for table in tables]),
        [name for table in tables for name in table.names],
        offsets_of(np.concatenate([np.diff(table.offsets) for table in tables])),
    )


def checked(data: Annotated, sizes: np.ndarray) -> tuple[Annotated, tuple[str, ...]]:
    """The annotations as they can be used, and notes about what was dropped or clipped.

    `sizes` is (N, 2): the pictures' heights and widths, zeros for those that cannot be read. Raises
    UserError for a picture of another size than its annotations say, and for a box outside of it.
    """
    _check_declared(data, sizes)
    _check_finite(data)
    has_area = np.all(data.boxes[:, 2:] > data.boxes[:, :2], axis=1)
    kept = data.keep(has_area)
    known = (sizes[kept.picture] > 0).all(1)
    limits = sizes[kept.picture][:, [1, 0, 1, 0]].astype(np.float64)
    clipped = np.where(known[:, None], np.clip(kept.boxes, 0, limits), kept.boxes)
    outside = ~(clipped[:, 2:] > clipped[:, :2]).all(1)
    if outside.any():
        raise _outside(kept, sizes, int(outside.argmax()))
    over = np.abs(clipped - kept.boxes).max(1, initial=0) > ROUNDING
    notes = (
        *_told(data, ~has_area, "dropped", f"has {NO_AREA}", f"have {NO_AREA}"),
        *_told(kept, over, "clipped", f"reaches {OVER}", f"reach {OVER}"),
    )
    return replace(kept, boxes=clipped), notes


def _check_declared(data: Annotated, sizes: np.ndarray) -> None:
    known = (data.declared > 0).all(1) & (sizes > 0).all(1)
    wrong = known & (data.declared != sizes).any(1)
    if not wrong.any():
        return
    number = int(wrong.argmax())
    said, found = (text(size_of(some[number])) for some in (data.declared, sizes))
    is_turned = said == text(size_of(sizes[number, ::-1]))
    turned = "; if its EXIF data turn it, save it upright" if is_turned else ""
    raise UserError(
        f"{data.places[number]} says that {data.paths[number]} is {said} px, height x width, "
        f"and it is {found}",
        f"its boxes are for a picture of another size: annotate the picture as it is{turned}",
    )


def _check_finite(data: Annotated) -> None:
    wrong = ~np.isfinite(data.boxes).all(1)
    if wrong.any():
        number = int(wrong.argmax())
        raise UserError(
            f"{data.place(number)}: its box is {corners(data.boxes[number])}",
            "corners are numbers of pixels",
        )


def _outside(data: Annotated, sizes: np.ndarray, number: int) -> UserError:
    picture = int(data.picture[number])
    size = text(size_of(sizes[picture]))
    return UserError(
        f"{data.place(number)}: its box {corners(data.boxes[number])} (x1, y1, x2, y2) lies "
        f"outside of {data.paths[picture]}, which is {size} px, height x width",
        "mend or remove it; boxes that reach over the border are clipped",
    )


def _told(data: Annotated, chosen: np.ndarray, what: str, one: str, several: str) -> Iterator[str]:
    """Yield a line about the `chosen` boxes, if there are any: `what` was done with them, and why.

    `one` and `several` say why of a single box, and of more.
    """
    n = int(chosen.sum())
    if n:
        number = int(chosen.argmax())
        yield (
            f"{what}: {counted(n, 'box')} that {one if n == 1 else several}, "
            f"such as {corners(data.boxes[number])} in {data.place(number)}"
        )


def corners(box: np.ndarray) -> str:
    """'504 337 504 337'."""
    return " ".join(f"{value:g}" for value in box)
