"""TOML text -> frozen dataclasses, strictly: every mistake at once, with the nearest name.

Knows no study, no model.

Types, ranges and unknown keys are checked by pydantic against the dataclass's own annotations.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails

from bam_search.errors import UserError, nearest

T = TypeVar("T")
Table = dict[str, Any]

LARGEST = 1_000_000
"""Bytes of a TOML file."""
NOT_TOML = (ValueError, RecursionError)
"""What tomllib raises: its own error, others for what is no UTF-8 and for numbers too long, one for
brackets without end.
"""

strict = with_config(ConfigDict(extra="forbid", strict=True))
"""Decorator of every dataclass that is read from TOML: no unknown key, no silent conversion."""


def folder(kind: str) -> Path:
    """Where `studies` or `search_spaces` lie: inside an installed package, beside it in a checkout."""
    inside = Path(__file__).parent / kind
    return inside if inside.is_dir() else Path(__file__).parent.parent / kind


def find(kind: str, name: str, suffix: str) -> Path:
    """The file of `name`, which is a path or the name of one that ships.

    Raises UserError with the nearest name.
    """
    if Path(name).suffix == suffix:
        if Path(name).is_file():
            return Path(name)
        raise UserError(f"there is no file {name!r}", nearest(Path(name).stem, known(kind, suffix)))
    path = folder(kind) / f"{name}{suffix}"
    if name not in known(kind, suffix):
        raise UserError(
            f"there is no {name!r} in {kind}/",
            f"{nearest(name, known(kind, suffix))} (or give a path to a {suffix} file)",
        )
    return path


def known(kind: str, suffix: str) -> list[str]:
    """Names of the files that ship in `kind`."""
    return sorted(
        path.stem for path in folder(kind).glob(f"*{suffix}") if not path.stem.startswith("_")
    )


def read_toml(path: Path) -> Table:
    """The table in `path`. Raises UserError if it cannot be read or is not TOML."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise UserError(
                f"{path} has {size:,} bytes",
                f"a study has some thousand, and at most {LARGEST:,} are read",
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except NOT_TOML as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """`base` with `over` laid on it, table by table."""
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if both_tables else value
    return merged


def flat(table: Mapping[str, Any], prefix: str = "") -> Table:
    """`{"recipe.lr": 0.1, ...}`: a table with its keys as `--set` names them."""
    rows: Table = {}
    for key, value in table.items():
        rows |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return rows


def assignment(text: str) -> Table:
    """`recipe.lr=0.2` -> {"recipe": {"lr": 0.2}}; the value is TOML, or a plain word.

    Raises UserError.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise UserError(f"--set {text!r} is not KEY=VALUE", "for example --set recipe.lr=0.1")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except NOT_TOML:
        parsed = value.strip()
    nested: Any = parsed
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `cls` from `table`.

    Raises one UserError that lists every mistake, `where` naming the source.
    """
    try:
        return TypeAdapter(cls).validate_json(_json(table))
    except ValidationError as error:
        details = error.errors(include_url=False)
        lines = [f"  {_sentence(cls, detail)}" for detail in details]
        count = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise UserError(f"{where} has {count}:\n" + "\n".join(lines)) from None


def _json(table: Mapping[str, Any]) -> bytes:
    # In JSON mode a strict pydantic takes a list for a tuple and a table for a dataclass, as TOML
    # means them.
    return json.dumps(table, default=str).encode()


def _sentence(cls: type[Any], detail: ErrorDetails) -> str:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    if detail["type"] == "unexpected_keyword_argument":
        names = _field_names(reduce(_field_type, path[:-1], cls))
        return f"unknown key {key!r}: {nearest(path[-1], names)}"
    if detail["type"] in ("missing", "missing_argument"):
        return f"{key!r} is missing"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{key} = {detail['input']!r}: {message}"


def _field_names(cls: Any) -> list[str]:
    return [field.name for field in fields(cls)] if is_dataclass(cls) else []


def _field_type(cls: Any, name: str) -> Any:
    """The type of the field `name` of a dataclass, or of an item of a tuple of them."""
    return get_type_hints(cls).get(name) if is_dataclass(cls) else next(iter(get_args(cls)), None)
