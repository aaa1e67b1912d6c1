"""The name of a model: `torchvision:resnet50`, `timm:NAME`, `net.py:Net(depth=3)`.

Text only: nothing is loaded, and nothing of it is executed.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bam_search.errors import UserError

EXAMPLE = (
    "write torchvision:resnet50, timm:convnext_tiny or path/to/file.py:function, "
    "with arguments if you like: 'net.py:Net(depth=3)'"
)
LITERALS = (
    "a value is a number, True, False, None, a text in quotes, "
    "or a list, tuple or dictionary of these"
)
_NAME = re.compile(r"(?P<source>.+?\.py|\w+):(?P<model>[\w.-]+)(?:\((?P<arguments>.*)\))?", re.S)


@dataclass(frozen=True)
class ModelName:
    """A model of a library, or what a function or class of a Python file gives.

    `source` is the library, or the path of the file, and `arguments` are those of the model's
    constructor by name, sorted.
    """

    source: str
    model: str
    arguments: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Read a name; the values of arguments are literals of Python.

        Raises UserError, which names the argument that cannot be read.
        """
        match = _NAME.fullmatch(text.strip())
        if match is None:
            raise UserError(f"cannot read {text!r} as a model", EXAMPLE)
        source, inside = match["source"], match["arguments"] or ""
        arguments = tuple(sorted(_arguments(text, inside).items()))
        return cls(str(Path(source)), match["model"], arguments)

    @property
    def is_file(self) -> bool:
        """Whether it is of a Python file, not of a library."""
        return self.source.endswith(".py")

    @property
    def text(self) -> str:
        """What `parse` reads: one text for each model."""
        inside = ", ".join(f"{key}={value!r}" for key, value in self.arguments)
        return f"{self.source}:{self.model}" + (f"({inside})" if inside else "")


def is_model_name(name: str) -> bool:
    """Whether it names a model, not a search space that ships or the file of one."""
    return ":" in name.partition("(")[0]


def canonical_name(name: str) -> str:
    """The one text of all names of the same model or search space. Raises UserError."""
    if is_model_name(name):
        return ModelName.parse(name).text
    return str(Path(name)) if name.endswith(".py") else name


def _arguments(text: str, inside: str) -> dict[str, Any]:
    """The arguments in the brackets of a name. Raises UserError."""
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"cannot read the arguments of {text!r}", EXAMPLE) from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise UserError(f"cannot read the arguments of {text!r}", EXAMPLE)
    found: dict[str, Any] = {}
    for name, node in _named(text, call):
        if name in found:
            raise UserError(f"{text!r} has the argument {name!r} twice", "give it once")
        found[name] = _literal(text, name, node)
    return found


def _named(text: str, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield the arguments of a call. Raises UserError for one without a name."""
    nameless = [*call.args, *(word.value for word in call.keywords if word.arg is None)]
    if nameless:
        value = ast.unparse(nameless[0])
        raise UserError(f"the argument {value} of {text!r} has no name", EXAMPLE)
    for word in call.keywords:
        yield str(word.arg), word.value


def _literal(text: str, name: str, node: ast.expr) -> Any:
    """The value of a literal whose text means the same again. Raises UserError for any other."""
    try:
        value = ast.literal_eval(node)
        # The order of a set is another one in each process, and infinity has no literal.
        is_stable = not any(isinstance(part, ast.Set | ast.Call) for part in ast.walk(node))
        if is_stable and ast.literal_eval(repr(value)) == value:
            return value
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        pass
    raise UserError(f"the argument {name}={ast.unparse(node)} of {text!r} is no literal", LITERALS)
