"""Load a task by the name that a study gives: one that ships, or the path of a Python file."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bam_search.errors import UserError, nearest
from bam_search.model.load import Inputs
from bam_search.space.search_space import made_by
from bam_search.tasks.classification import sources
from bam_search.tasks.detection import sources as detection_sources
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Source, Task

CLASSIFICATION = "classification"
"""The task of a study that names none."""

TASKS: Mapping[str, Callable[[], Task]] = {
    CLASSIFICATION: sources.task,
    "detection": detection_sources.task,
}
"""The tasks that ship, by name."""


def load_task(name: str, inputs: Inputs | None = None) -> Task:
    """The task of `name`, which is in TASKS or the path of a file with `task() -> Task`.

    With `inputs`, those of a `Source`, the task is for these. The file is Python and is executed,
    once a process: name only files you trust. Raises UserError.
    """
    return _for_inputs(name, _named(name), inputs)


def task_on(name: str, wanted: str, reading: Reading) -> tuple[Task, Source]:
    """The task of `name` for the data at `wanted`, and the source of these.

    Raises UserError as `load_task` and `Task.locate` do.
    """
    task = _named(name)
    source = task.locate(wanted, reading)
    return _for_inputs(name, task, source.inputs), source


def _for_inputs(name: str, task: Any, inputs: Inputs | None) -> Task:
    if inputs in (None, task.inputs):
        return task
    if not hasattr(task, "for_inputs"):
        raise UserError(
            f"task {name!r} takes {task.inputs}, and its data have {inputs}",
            "give the task a method for_inputs(inputs) -> Task",
        )
    return task.for_inputs(inputs)


def _named(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]()
    path = Path(name)
    if path.suffix != ".py":
        hint = f"{nearest(name, TASKS)} (or give a path to a .py file)"
        raise UserError(f"there is no task {name!r}", hint)
    if not path.is_file():
        raise UserError(f"there is no file {name!r}", "task is a name, or a path to a .py file")
    return _of_file(path.resolve())


# Its samples are pickled by the names of their classes, so there must be one of each in a process.
@functools.cache
def _of_file(path: Path) -> Task:
    task: Task = made_by(path, "task", "task", "Task", kind="task")
    missing = sorted(member for member in _members() if not hasattr(task, member))
    if missing:
        raise UserError(
            f"task() of {path} returned {type(task).__name__} without {', '.join(missing)}",
            "see Task in bam_search/tasks/task.py",
        )
    return task


def _members() -> list[str]:
    return [name for name in vars(Task) if not name.startswith("_")]
