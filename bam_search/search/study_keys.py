"""The keys that a study file may have: type, default and meaning, from the study's dataclasses."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from bam_search.search.study import Study

Schema = Mapping[str, Any]
"""A JSON schema, which pydantic makes of a dataclass."""
NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
"""What a study's author calls JSON's types."""
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


@dataclass(frozen=True)
class Key:
    """One key, as `--set` names it; `default` is TOML, "required", or "none"."""

    name: str
    type: str
    default: str


@dataclass(frozen=True)
class KeyTable:
    """The keys of one table of a study file, and what they mean; `name` is empty at the top."""

    name: str
    about: str
    keys: tuple[Key, ...]


def key_tables() -> Iterator[KeyTable]:
    """Yield the table of keys at the top of a study file, then those of its own tables."""
    schema = TypeAdapter(Study).json_schema()
    kinds = schema["$defs"]
    yield _table("", schema)
    for name, value in schema["properties"].items():
        kind = _kind(value.get("items", value))
        if kind:
            yield _table(name, kinds[kind])


def _table(name: str, schema: Schema) -> KeyTable:
    required = schema.get("required", ())
    keys = []
    for key, value in schema["properties"].items():
        if not _kind(value):
            default = "required" if key in required else _default(value)
            keys.append(Key(f"{name}.{key}".lstrip("."), _type(value), default))
    return KeyTable(name, _about(schema["description"]), tuple(keys))


def _about(docstring: str) -> str:
    """A docstring without its example, and with its attributes as a list. It is Markdown."""
    paragraphs = [text for text in docstring.split("\n\n") if not text.lstrip().startswith(">>>")]
    return "\n\n".join(map(_paragraph, paragraphs)).strip()


def _paragraph(text: str) -> str:
    heading, _, listed = text.partition("\n")
    if heading.strip() != "Attributes:":
        return text
    return re.sub(r"^ {4}(\S[^:\n]*):", r"- `\1`:", listed, flags=re.MULTILINE)


def _kind(value: Schema) -> str:
    """The name of the dataclass that a value is, if it is one."""
    return str(value.get("$ref", "")).rpartition("/")[2]


def _default(value: Schema) -> str:
    default = value.get("default")
    if "default" not in value:
        return "{}" if value["type"] == "object" else "[]"
    return "none" if default is None else json.dumps(default)


def _type(value: Schema) -> str:
    """What a value may be, in words."""
    if "anyOf" in value:
        words = [_type(one) for one in value["anyOf"] if one.get("type") != "null"]
        return " or ".join(words)
    if "const" in value or "enum" in value:
        return " or ".join(map(json.dumps, value.get("enum", [value.get("const")])))
    if "prefixItems" in value:
        return f"[{', '.join(map(_type, value['prefixItems']))}]"
    if value.get("type") == "array":
        return "list of tables" if _kind(value["items"]) else f"[{_type(value['items'])}, ...]"
    if value.get("type") == "object":
        return "table"
    bounds = [f"{word} {value[bound]}" for bound, word in BOUNDS.items() if bound in value]
    return " ".join([NAMES.get(value.get("type", ""), "any value"), ", ".join(bounds)]).strip()
