"""`list`: the search spaces, attention modules and studies that there are.

Python files are read as text, not imported: torch takes seconds to import.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import click

from bam_search.config import folder, known, read_toml
from bam_search.space.modules import TIMM, TIMM_NAMES
from bam_search.space.placement import Choice, Option
from bam_search.space.search_space import SPACES, space_names, space_table

ATTENTION = Path(__file__).parents[1] / "model" / "attention"


def show() -> None:
    """Print every name with one line about it."""
    click.echo("spaces")
    for name in space_names():
        _line(name, _about_space(name))
    click.echo("\nattention modules, with their defaults")
    for choice, text in attention_modules():
        _line(choice.text, text)
    timm = ", ".join(name.removeprefix(TIMM) for name in TIMM_NAMES)
    _line(f"{TIMM}NAME", f"timm's, where it is installed: {timm}")
    _line("NAME", "one of yours: --module NAME=FILE.py:CLASS")
    click.echo("\nstudies")
    for name in known("studies", ".toml"):
        study = read_toml(folder("studies") / f"{name}.toml")
        _line(name, str(study.get("question", "")))


def show_keys() -> None:
    """Print every key that a study may have, table by table, with its type and default."""
    from bam_search.search.study_keys import key_tables  # imports torch

    for table in key_tables():
        click.echo(f"[{table.name}]" if table.name else "study")
        click.echo(f"{table.about}\n")
        for key in table.keys:
            click.echo(f"  {key.name:28} {key.type}; default: {key.default}")
        click.echo()


def _about_space(name: str) -> str:
    table = space_table()
    if name in table:
        return table[name].about
    return _docstring(_parsed(folder(SPACES) / f"{name}.py"))


def attention_modules() -> Iterator[tuple[Choice, str]]:
    """Yield each attention module with all its defaults, and the docstring of its file.

    A module is a class in a file of the same name in lower case: `class BAM` in `bam.py`.
    """
    for path in sorted(ATTENTION.glob("*.py")):
        parsed = _parsed(path)
        for statement in parsed.body:
            if isinstance(statement, ast.ClassDef) and statement.name.lower() == path.stem:
                yield Choice.of(path.stem, _defaults(statement)), _docstring(parsed)


def _defaults(cls: ast.ClassDef) -> dict[str, Option]:
    """Return the arguments of a class that have defaults, in order."""
    methods = [statement for statement in cls.body if isinstance(statement, ast.FunctionDef)]
    (arguments,) = (method.args for method in methods if method.name == "__init__")
    optional = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    return {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(optional, arguments.defaults, strict=True)
    }


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _docstring(parsed: ast.Module) -> str:
    return ast.get_docstring(parsed) or ""


def _line(name: str, text: str) -> None:
    first_line = text.splitlines()[0] if text else ""
    click.echo(f"  {name:24} {first_line}")
