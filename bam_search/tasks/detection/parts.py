"""Which pictures train and which test, by the names that data sets give to their parts."""

from collections.abc import Mapping, Sequence

from bam_search.tasks.pictures.parts import TEST, TRAIN

TRAINVAL = "trainval"
KINDS: Mapping[str, Sequence[str]] = {
    "train": TRAIN,
    "val": tuple(name for name in TEST if name.startswith("val")),
    "test": tuple(name for name in TEST if name.startswith("test")),
    TRAINVAL: (TRAINVAL,),
}
"""What each kind of part is called, in lower case."""
NAMES = tuple(name for names in KINDS.values() for name in names)


def roles(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts that train, and those that test; these are empty where there is no such part.

    Where one is called test, all others train together; a study takes its validation samples from
    them. Else what is called val tests.
    """
    kinds = {kind: _first(names, known) for kind, known in KINDS.items()}
    train = kinds[TRAINVAL] or (*kinds["train"], *kinds["val"])
    if kinds["test"]:
        return train, kinds["test"]
    if kinds["train"] and kinds["val"]:
        return kinds["train"], kinds["val"]
    return train, ()


def _first(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The first part of a kind, or nothing."""
    return tuple(name for one in known for name in names if name.lower() == one)[:1]


def part_words(train: Sequence[str], test: Sequence[str]) -> str:
    """'train.txt + val.txt, test.txt'; nothing where nothing tests."""
    return f"{' + '.join(train)}, {test[0]}" if test else ""
