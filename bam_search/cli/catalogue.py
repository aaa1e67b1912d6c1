"""`list`: the search spaces, attention modules and studies that there are."""

import ast
import sys

import click

from bam_search.config import folder, known, read_toml
from bam_search.model.attention import ATTENTION, defaults
from bam_search.space.placement import Choice


def show() -> None:
    """Print every name with one line about it."""
    click.echo("spaces")
    for name in known("search_spaces", ".py"):
        source = (folder("search_spaces") / f"{name}.py").read_text(encoding="utf-8")
        _line(name, ast.get_docstring(ast.parse(source)) or "")
    click.echo("\nattention modules, with their defaults")
    for name, module in ATTENTION.items():
        with_defaults = Choice.of(name, defaults(name)).text
        _line(with_defaults, sys.modules[module.__module__].__doc__ or "")
    click.echo("\nstudies")
    for name in known("studies", ".toml"):
        study = read_toml(folder("studies") / f"{name}.toml")
        _line(name, str(study.get("question", "")))


def _line(name: str, text: str) -> None:
    first_line = text.splitlines()[0] if text else ""
    click.echo(f"  {name:24} {first_line}")
