"""The files below a folder, and which of them look like pictures."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

PICTURES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".ico", ".png", ".tga", ".tif", ".tiff", ".webp"),
    *(".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx"),
    *(".pbm", ".pgm", ".pnm", ".ppm"),
)
"""The ends of the names of files that are pictures."""
HIDDEN = re.compile(r"(^|/)(\.|__MACOSX(/|$))")
"""What a path has that is hidden: a name that begins with a dot, or what macOS adds to archives."""


def folders_in(path: Path) -> list[os.DirEntry[str]]:
    """The folders in a folder, sorted, without hidden ones."""
    with os.scandir(path) as entries:
        folders = [entry for entry in entries if entry.is_dir() and not HIDDEN.search(entry.name)]
    return sorted(folders, key=lambda entry: entry.name)


def walk(
    folder: str, name: str, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield each file below a folder, sorted, after its path, in which `name` is the folder.

    Links to folders are followed, except to one of those `above`.
    """
    stat = Path(folder).stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from walk(entry.path, path, above | {here})
        elif entry.is_file():
            yield path, entry


def is_picture(path: str) -> bool:
    """Whether it looks like one; what is hidden, or lies in a hidden folder, is none."""
    return path.lower().endswith(PICTURES) and not HIDDEN.search(path)
