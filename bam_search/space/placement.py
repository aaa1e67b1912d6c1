"""A placement: which attention module sits at which site, with which options.

It is text: `layer1=bam layer3=bam(r=8,d=2)`. A dictionary, `{"layer3": "bam(r=8,d=2)"}`, and JSON
say the same.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bam_search.errors import UserError

Option = int | float | bool | str
EXAMPLE = "a placement reads like 'layer1=bam layer3=bam(r=8,d=2)', or 'none'"
EXAMPLE_JSON = 'it reads like {"layer1": "bam(r=8)"} or {"layer1": {"module": "bam"}}'
_CHOICE = re.compile(
    r"(?P<target>(?:/[^/\s]+/|[^\s=()/])+)=(?P<module>[A-Za-z_][\w.]*)(?:\((?P<options>[^()]*)\))?"
)


@dataclass(frozen=True)
class Choice:
    """An attention module by name, with the options given to it: `bam(r=8,d=2)`.

    The name `none` leaves a site out.
    """

    module: str
    options: tuple[tuple[str, Option], ...] = ()

    @classmethod
    def of(cls, module: str, options: Mapping[str, Option]) -> "Choice":
        """The choice of `module` with `options`, in their order."""
        return cls(module, tuple(options.items()))

    @property
    def text(self) -> str:
        """`bam`, or `bam(r=8,d=2)`."""
        inside = ",".join(f"{name}={_option_text(value)}" for name, value in self.options)
        return f"{self.module}({inside})" if inside else self.module


NONE = Choice("none")


@dataclass(frozen=True)
class Placement:
    """Choices by site, in the order of the sites. `id` is equal exactly for equal texts.

        >>> from bam_search import Placement
        >>> placement = Placement.parse("layer1=bam layer3=bam(r=8, d=2)")
        >>> placement.text
        'layer1=bam layer3=bam(r=8,d=2)'
        >>> [(site, choice.module) for site, choice in placement.choices]
        [('layer1', 'bam'), ('layer3', 'bam')]

    A placement as a user writes it may name targets (`bottleneck=bam layer3=bam(r=8)`);
    `bam_search.model.attach.resolve` turns it into the canonical one, with real sites in the
    model's order and no option that equals its default, so equal designs have equal ids.
    """

    choices: tuple[tuple[str, Choice], ...] = ()

    @classmethod
    def of(cls, choices: Mapping[str, Choice]) -> "Placement":
        """The placement of `choices`, in their order."""
        return cls(tuple(choices.items()))

    @classmethod
    def parse(cls, text: str) -> "Placement":
        """Read a placement.

        Raises UserError for what is not `target=module(option=value,...)`, or a target named twice.
        """
        if text.strip() in ("", "none"):
            return cls()
        words = re.sub(r"\s*([=(,])\s*|\s+(\))", r"\1\2", text.strip()).split()
        choices: dict[str, Choice] = {}
        for word in words:
            target, choice = _parse_choice(word)
            if target in choices:
                raise UserError(
                    f"placement {text!r} names {target!r} twice",
                    "a site holds one attention module",
                )
            choices[target] = choice
        return cls.of(choices)

    @property
    def text(self) -> str:
        """What `parse` reads; 'none' for no attention."""
        return " ".join(f"{site}={choice.text}" for site, choice in self.choices) or "none"

    @property
    def id(self) -> str:
        """Ten hexadecimal digits, the same on every machine."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:10]

    def to_dict(self) -> dict[str, str]:
        """Each choice as text by its site: `{"layer3": "bam(r=8,d=2)"}`. `from_dict` reads it."""
        return {site: choice.text for site, choice in self.choices}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Placement":
        """The placement of a dictionary of choices by target, in its order: `to_dict`'s inverse.

            >>> from bam_search import Placement
            >>> Placement.from_dict({"layer1": "bam", "layer3": "bam(r=8, d=2)"}).text
            'layer1=bam layer3=bam(r=8,d=2)'

        Args:
            table: a choice is text, `"bam(r=8)"`, a Choice, or what `by_site` has:
                `{"module": "bam", "options": {"r": 8}}`.

        Raises:
            UserError: a target or choice is none that `parse` reads too.
        """
        choices: dict[str, Choice] = {}
        for target, value in table.items():
            choices[target] = _choice_at(target, value)
        return cls.of(choices)

    @property
    def by_site(self) -> dict[str, dict[str, Any]]:
        """`{"module": ..., "options": {...}}` by site, for JSON."""
        return {
            site: {"module": choice.module, "options": dict(choice.options)}
            for site, choice in self.choices
        }

    @property
    def json(self) -> str:
        """What `from_json` reads: `by_site` as text."""
        return json.dumps(self.by_site, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Placement":
        """The inverse of `json`; it also reads `to_dict` as JSON.

        Raises UserError for what is no placement, or a target that is named twice.
        """
        try:
            table = json.loads(text, object_pairs_hook=_each_key_once)
        except (ValueError, TypeError, RecursionError):
            raise UserError("this JSON is no placement", EXAMPLE_JSON) from None
        if not isinstance(table, dict):
            raise UserError("this JSON is no placement", EXAMPLE_JSON)
        return cls.from_dict(table)

    def __str__(self) -> str:
        return self.text


def _option_text(value: Option) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choice_at(target: str, value: Any) -> Choice:
    """The choice that `value` is at `target`, as `Placement.from_dict` takes it.

    Raises UserError unless its text means the same.
    """
    choice = _choice_of(value)
    read = Placement()
    if choice is not None or isinstance(value, str):
        with contextlib.suppress(UserError):
            read = Placement.parse(f"{target}={value if choice is None else choice.text}")
    if [name for name, _ in read.choices] != [target] or choice not in (None, read.choices[0][1]):
        raise UserError(f"a placement cannot have {value!r} at {target!r}", EXAMPLE_JSON)
    return read.choices[0][1]


def _choice_of(value: Any) -> Choice | None:
    """The choice that `value` holds in parts; None if it is text, or anything else."""
    if isinstance(value, Choice):
        return value
    if not isinstance(value, Mapping) or not set(value) <= {"module", "options"}:
        return None
    options = value.get("options", {})
    return Choice.of(value.get("module", ""), options) if isinstance(options, Mapping) else None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dictionary of a JSON object. Raises UserError if it has a key twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"the JSON names {twice!r} twice", "a site holds one attention module")
    return table


def _parse_choice(word: str) -> tuple[str, Choice]:
    match = _CHOICE.fullmatch(word)
    if match is None:
        raise UserError(f"cannot read {word!r} as part of a placement", EXAMPLE)
    options: dict[str, Option] = {}
    for text in filter(None, (match["options"] or "").split(",")):
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not equals or not value:
            raise UserError(f"cannot read option {text!r} in {word!r}", EXAMPLE)
        if name in options:
            raise UserError(f"option {name!r} is given twice in {word!r}", EXAMPLE)
        options[name] = _parse_value(value)
    return match["target"], Choice.of(match["module"], options)


def _parse_value(text: str) -> Option:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
