"""The commands that a report shows for each candidate, and what they are made of.

A page carries what they are made of, not the commands: whoever changes it changes arguments only.
"""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Where a study's candidates come from: its folder, its space, its data and its weights.

    Each is as the command line takes it; `weights` is empty of a study from scratch. `shape` and
    `classes` are those of its data; empty and 0 where the space is made for them. `modules` are the
    user's, each NAME=FILE.py:CLASS, and `insertion` is that of attention.
    """

    folder: str
    space: str
    data: str
    weights: str = ""
    shape: tuple[int, ...] = ()
    classes: int = 0
    modules: tuple[str, ...] = ()
    insertion: str = "plain"


def commands(origin: Origin) -> tuple[str, ...]:
    """The commands that count a candidate's cost, train it again, map its attention and export it.

    `{tag}` and `{placement}` stand for the candidate's.
    """
    candidate = [origin.folder, "--candidate", "{tag}"]
    data = ["--data", origin.data]
    weights = f"{origin.folder}/candidate-{{tag}}.pt"
    start = ["--weights", origin.weights] if origin.weights else []
    size = "x".join(map(str, origin.shape))
    inputs = ["--input", size, "--classes", str(origin.classes)] if size else []
    modules = [word for module in origin.modules for word in ("--module", module)]
    inserted = [] if origin.insertion == "plain" else ["--insertion", origin.insertion]
    how = [*inputs, *modules, *inserted]
    asked = (
        ["count", "--space", origin.space, *how, "--placement", "{placement}"],
        ["train", *candidate, *data, *start, "--out", weights],
        ["maps", *candidate, *data, "--weights", weights],
        ["export", *candidate, "--weights", weights],
    )
    return tuple(shlex.join(["python", "-m", "bam_search", *words]) for words in asked)
