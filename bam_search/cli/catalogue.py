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
        _line(Choice.of(name, defaults(name)).text, sys.modules[module.__module__].__doc__ or "")
    click.echo("\nstudies")
    for name in known("studies", ".toml"):
        _line(name, str(read_toml(folder("studies") / f"{name}.toml").get("question", "")))


def _line(name: str, text: str) -> None:
    click.echo(f"  {name:24} {text.splitlines()[0] if text else ''}")
