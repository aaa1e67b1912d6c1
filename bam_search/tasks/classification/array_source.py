"""The source of images that are arrays: named by their contents, resized where a study says so."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bam_search.errors import UserError
from bam_search.tasks.classification import cifar100
from bam_search.tasks.classification.arrays import LabelledImages, images_of
from bam_search.tasks.classification.cifar100 import CIFAR, CIFAR_INPUTS
from bam_search.tasks.classification.images import Images
from bam_search.tasks.classification.notes import class_notes
from bam_search.tasks.classification.sizing import Sizing, sizing
from bam_search.tasks.pictures.decode import resized
from bam_search.tasks.pictures.sizes import Size, text
from bam_search.tasks.pictures.threads import chunks, in_order
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Dataset, Source, digests

CIFAR_TRAIN = "f062ca493c4d"
"""The digest of CIFAR-100's training set, in its official order with its fine labels."""
AT_A_TIME = 64
"""Images that a thread resizes at a time."""


def array_source(
    name: str,
    arrays: Sequence[np.ndarray],
    names: Sequence[str] = (),
    sized: Sizing | None = None,
) -> Source:
    """The source of x_train, y_train, x_test and y_test, which `name` gave.

    `names` are those of the classes, if the labels are their numbers. `sized` says how the images
    were made of one size, if they were. Raises UserError for arrays that are no labelled images.
    """
    found = labelled(name, arrays, names)
    train, test, inputs = len(found.train), len(found.test), found.inputs
    data = dataset_of(name, f"{name}, {sized.words}" if sized else name, found)
    if sized:
        inputs = replace(inputs, shape=(3, *sized.working))
    size = sized.words if sized else text((inputs.shape[1], inputs.shape[2]))
    return Source(
        f"{name}: {train:,} images to train and {test:,} to test, {inputs.classes} classes, {size}",
        train,
        test,
        lambda: data,
        inputs,
        tuple(class_notes(found.train.y, found.test.y, found.classes)),
        at_hand=True,
    )


def labelled(where: object, arrays: Sequence[np.ndarray], names: Sequence[str]) -> LabelledImages:
    """`images_of`, whose errors say where the arrays are from, and whose classes have names."""
    try:
        found = images_of(*arrays)
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from None
    return replace(found, classes=named(found.classes, names))


def named(classes: tuple[str, ...], names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes that are numbers of `names`; the classes if they are not."""
    known = {str(number): name for number, name in enumerate(names)}
    return tuple(known[one] for one in classes) if set(classes) <= set(known) else classes


def dataset_of(name: str, origin: str, found: LabelledImages) -> Dataset:
    """The data set of images; it is called CIFAR-100 only if its training set is that, hashed."""
    data = Dataset(name, origin, found.train, found.test, classes=found.classes)
    if (len(found.train), *found.train.shape) != (cifar100.TRAIN, 32, 32, 3):
        return data
    of_train, digest = digests(found.train, found.test)
    return replace(data, name=CIFAR if of_train == CIFAR_TRAIN else name, known_digest=digest)


def fitted(source: Source, reading: Reading) -> Source:
    """The source of arrays, resized if `reading` asks for another size than theirs."""
    inputs = source.inputs or CIFAR_INPUTS
    own = inputs.shape[1:]
    if reading.size == "auto":
        return source
    found = sizing(np.array([own]), reading)
    if found.working == own:
        return source
    return replace(
        source,
        text=f"{source.text}, {found.words}",
        inputs=replace(inputs, shape=(3, *found.working)),
        load=lambda: _resized(source.load(), found, reading),
    )


def _resized(data: Dataset, found: Sizing, reading: Reading) -> Dataset:
    with reading.progress("resizing images", len(data.train) + len(data.test)) as advance:
        train, test = (
            Images(_scaled(part.x, found.stored, advance), part.y)
            for part in (data.train, data.test)
        )
    origin = f"{data.origin}, {found.words}"
    return replace(data, origin=origin, train=train, test=test, known_digest="")


def _scaled(x: np.ndarray, size: Size, advance: Callable[[int], None]) -> np.ndarray:
    """(N, h, w, 3) uint8: the images of an array, each scaled to cover `size`."""

    def some(rows: Sequence[int]) -> np.ndarray:
        return np.stack([resized(np.array(x[row]), *size) for row in rows])

    found = []
    for part in in_order(some, chunks(len(x), AT_A_TIME)):
        found.append(part)
        advance(len(part))
    return np.concatenate([np.zeros((0, *size, 3), np.uint8), *found])
