"""Attention modules that are not part of this package: a user's, in a file, and timm's, by name.

Names, paths and hashes only: `bam_search.model.attention` loads them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bam_search.errors import UserError
from bam_search.space.user_file import digest_of_code

EXAMPLE = "write NAME=FILE.py:CLASS, for example coord=my_module.py:CoordAttention"
TIMM = "timm."
"""How the name of an attention module of timm begins."""
_TIMM_NAMES = (
    *("cbam", "ceca", "coord", "eca", "ecam", "ela", "ese", "gc", "gca", "ge"),
    *("lcbam", "nl", "scoord", "se", "strip"),
)
TIMM_NAMES = tuple(f"{TIMM}{name}" for name in _TIMM_NAMES)
"""timm's attention modules that leave the shape of a map of any size as it is."""
_SOURCE = re.compile(r"(?P<path>.+\.py):(?P<cls>\w+)")


@dataclass(frozen=True)
class ModuleFile:
    """A class in a Python file, and the hash of the file's code when it was named.

    A worker process loads the class from it. The hash, which is also of what the file imports from
    its folder, is part of a study's identity: what changed code trains is another study.
    """

    path: str
    cls: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> "ModuleFile":
        """The class that `my_module.py:CoordAttention` names.

        Raises UserError for another text, or if the file cannot be read.
        """
        match = _SOURCE.fullmatch(text)
        if match is None:
            raise UserError(f"{text!r} names no class in a Python file", EXAMPLE)
        try:
            return cls(match["path"], match["cls"], digest_of_code(Path(match["path"])))
        except UserError as error:
            raise UserError(error.message, EXAMPLE) from None

    @property
    def text(self) -> str:
        """What `parse` reads."""
        return f"{self.path}:{self.cls}"


def files_of(sources: Mapping[str, str]) -> dict[str, ModuleFile]:
    """The file of each source by name, hashed now. Raises UserError as `ModuleFile.parse` does."""
    return {name: ModuleFile.parse(source) for name, source in sources.items()}


def is_definition(text: str) -> bool:
    """Whether a text is meant as NAME=FILE.py:CLASS, which no choice such as `bam(r=8)` is."""
    name, equals, _ = text.partition("=")
    return bool(equals) and "(" not in name


def parse_definitions(texts: Iterable[str]) -> Mapping[str, str]:
    """The sources by name of texts such as `coord=my_module.py:CoordAttention`.

    Raises UserError for a text that does not read so, or a name that is given twice.
    """
    sources: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise UserError(f"cannot read --module {text!r}", EXAMPLE)
        if name in sources:
            raise UserError(f"--module names {name!r} twice", "give each module a name of its own")
        sources[name] = source
    return sources
