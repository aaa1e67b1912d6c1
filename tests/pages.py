"""Runs the marked blocks of a page as a reader would: in order, in one folder.

`<!-- runs -->` before a block runs it, `<!-- runs: PACKAGE -->` where that package is installed,
`<!-- here -->` runs it in the clone,
and `<!-- file: NAME -->` writes it to a file. `python tests/pages.py PAGE` does so in an empty
folder.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- (runs|here|file)(?:: (\S+))? -->\n```(\w+)\n(.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A marked block of a `kind` as above; `name` is the file's or that of a package, if any."""

    kind: str
    name: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The marked blocks of a page, in order."""
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def run_page(page: Path, folder: Path) -> int:
    """Run the page's blocks in `folder`; return how many ran. Raises CalledProcessError."""
    ran = 0
    for block in blocks(page):
        if block.kind == "file":
            (folder / block.name).write_text(block.text)
        elif not block.name or importlib.util.find_spec(block.name):
            _run(block, folder)
            ran += 1
    return ran


def _run(block: Block, folder: Path) -> None:
    """Run a block; `python` is the one that runs this."""
    script = folder / f"block.{block.language}"
    script.write_text(block.text)
    command = {"sh": ["bash", "-euo", "pipefail"], "python": [sys.executable]}[block.language]
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(folders),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    where = ROOT if block.kind == "here" else folder
    subprocess.run([*command, script], cwd=where, env=environment, check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for argument in sys.argv[1:]:
            print(f"{argument}: {run_page(Path(argument), Path(temporary))} blocks ran")
