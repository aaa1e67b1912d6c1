"""Read TOML into frozen dataclasses, strictly, and report every mistake at once.

Pydantic checks types, ranges and unknown keys against the annotations of the dataclass. This
module knows no study and no model.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from functools import reduce
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails

from bam_search.errors import UserError, nearest

T = TypeVar("T")
Table = dict[str, Any]

LARGEST = 1_000_000
"""The most bytes that a TOML file may have."""
NOT_TOML = (ValueError, RecursionError)
"""What tomllib raises for a text that is not TOML.

ValueError stands for its own error, for text that is not UTF-8 and for numbers that are too long;
RecursionError for brackets that are nested too deep.
"""

ALSO = "also"
"""In the metadata of a field: what others call it."""
UNIONS = (Union, UnionType)
"""What a type is that stands for several; a type with annotations makes it the first."""

strict = with_config(ConfigDict(extra="forbid", strict=True))
"""Decorator of every dataclass that is read from TOML: no unknown key, no silent conversion."""


def folder(kind: str) -> Path:
    """Return the folder of the `studies` or `search_spaces` that ship.

    It is inside an installed package, and beside the package in a checkout.
    """
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def find(kind: str, name: str, suffix: str) -> Path:
    """Return the file of `name`, which is a path or the name of a file that ships in `kind`.

    Raises UserError with the nearest name.
    """
    path = Path(name)
    if path.suffix == suffix:
        if path.is_file():
            return path
        raise UserError(f"there is no file {name!r}", nearest(path.stem, known(kind, suffix)))
    names = known(kind, suffix)
    if name not in names:
        raise UserError(
            f"there is no {name!r} in {kind}/",
            f"did you mean {name}{suffix}?"
            if Path(f"{name}{suffix}").is_file()
            else f"{nearest(name, names)} (or give a path to a {suffix} file)",
        )
    return folder(kind) / f"{name}{suffix}"


def known(kind: str, suffix: str) -> list[str]:
    """Return the names of the files that ship in `kind`, sorted and without `suffix`."""
    names = [path.stem for path in folder(kind).glob(f"*{suffix}")]
    return sorted(name for name in names if not name.startswith("_"))


def read_toml(path: Path) -> Table:
    """Return the table in `path`. Raises UserError if it cannot be read or is not TOML."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
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
    """Return `base` with the values of `over`, table by table; the arguments stay as they are."""
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if both_tables else value
    return merged


def flat(table: Mapping[str, Any], prefix: str = "") -> Table:
    """Return a table with its keys as `--set` names them: `{"recipe.lr": 0.1, ...}`."""
    rows: Table = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = value
    return rows


def assignment(text: str) -> Table:
    """Return `recipe.lr=0.2` as the table {"recipe": {"lr": 0.2}}.

    The value is TOML, or a plain word.

    Raises UserError if the text is not KEY=VALUE.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise UserError(f"--set {text!r} is not KEY=VALUE", "for example --set recipe.lr=0.1")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except NOT_TOML:
        parsed = value.strip()
    return nested(key.strip(), parsed)


def nested(key: str, value: Any) -> Table:
    """Return the table that has `value` at the dotted `key`: {"recipe": {"lr": 0.2}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Return an instance of the dataclass `cls` with the values of `table`.

    Raises one UserError that lists every mistake; `where` names the source of the table.
    """
    try:
        return TypeAdapter(cls).validate_json(_json(table))
    except ValidationError as error:
        details = error.errors(include_url=False)
        lines = [f"  {_sentence(cls, alike)}" for alike in _by_key(cls, details)]
        count = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise UserError(f"{where} has {count}:\n" + "\n".join(lines)) from None


def _json(table: Mapping[str, Any]) -> bytes:
    # In JSON mode, strict pydantic accepts a list for a tuple and a table for a dataclass. TOML
    # has no other way to write these.
    return json.dumps(table, default=str).encode()


def _by_key(cls: type[Any], details: Sequence[ErrorDetails]) -> list[list[ErrorDetails]]:
    """Return the mistakes, those of one key together: a value may be none of several types."""
    found: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for detail in details:
        found.setdefault(tuple(_path(cls, detail)), []).append(detail)
    return list(found.values())


def _path(cls: Any, detail: ErrorDetails) -> list[str]:
    """Return the keys to a mistake, without the name that pydantic gives each type it tried."""
    path: list[str] = []
    for part in map(str, detail["loc"]):
        types = set(get_args(cls)) - {NoneType} if get_origin(cls) in UNIONS else {cls}
        if len(types) > 1:
            break
        path.append(part)
        cls = _field_type(types.pop(), part)
    return path


def _sentence(cls: type[Any], details: Sequence[ErrorDetails]) -> str:
    """Return a mistake that pydantic found in a table for `cls`, as a sentence.

    It is a mistake for each of the types that the value could have.
    """
    detail = details[0]
    path = _path(cls, detail)
    key = ".".join(path)
    if detail["type"] == "unexpected_keyword_argument":
        return f"unknown key {key!r}: {_hint(reduce(_field_type, path[:-1], cls), path[-1])}"
    if detail["type"] in ("missing", "missing_argument"):
        return f"{key!r} is missing"
    messages = [detail["msg"][0].lower() + detail["msg"][1:] for detail in details]
    return f"{key} = {detail['input']!r}: {' or '.join(messages)}"


def also(default: T, *words: str) -> T:
    """Return the default of a field that others call by these words: a mistake then names it."""
    found: T = field(default=default, metadata={ALSO: words})
    return found


def _hint(cls: Any, name: str) -> str:
    """Return what the key `name` of a dataclass is called here, or may have been meant to be."""
    known_fields = fields(cls) if is_dataclass(cls) else ()
    for one in known_fields:
        if name in one.metadata.get(ALSO, ()):
            return f"it is {one.name!r} here"
    return nearest(name, [one.name for one in known_fields])


def _field_type(cls: Any, name: str) -> Any:
    """Return the type of the field `name` of a dataclass, or of an item of a tuple of them."""
    if is_dataclass(cls):
        return get_type_hints(cls).get(name)
    return next(iter(get_args(cls)), None)
