"""Reading TOML into dataclasses: every mistake is reported at once, with the nearest name."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Le

from bam_search.config import assignment, build, find, known, overlay, read_toml, strict
from bam_search.errors import UserError


@strict
@dataclass(frozen=True)
class Inner:
    lr: Annotated[float, Gt(0), Le(10)] = 0.1
    kind: Literal["a", "b"] = "a"


@strict
@dataclass(frozen=True)
class Outer:
    name: str
    numbers: tuple[int, ...] = ()
    count: Annotated[int, Ge(1)] = 1
    inner: Inner = field(default_factory=Inner)


def test_build_reads_nested_tables_and_lists() -> None:
    table = {"name": "x", "numbers": [1, 2], "inner": {"lr": 1, "kind": "b"}}
    assert build(Outer, table, "here") == Outer("x", (1, 2), 1, Inner(1.0, "b"))


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        build(Outer, {"nam": "x", "count": 0, "inner": {"lrr": 1, "kind": "c"}}, "file.toml")
    message = caught.value.message
    assert "file.toml has 5 mistakes" in message
    for part in (
        "'name' is missing",
        "'nam'",
        "'name'?",
        "count = 0",
        "'inner.lrr'",
        "'lr'?",
        "inner.kind = 'c'",
    ):
        assert part in message


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 0, -1, "0.1", True, None, [0.1], 10**400]
)
def test_values_out_of_range_or_type_are_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"inner\.lr"):
        build(Outer, {"name": "x", "inner": {"lr": value}}, "here")


def test_whole_numbers_are_not_made_of_floats() -> None:
    with pytest.raises(UserError, match=r"count = 2\.5"):
        build(Outer, {"name": "x", "count": 2.5}, "here")


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("a=1", {"a": 1}),
        ("a.b=0.5", {"a": {"b": 0.5}}),
        ("a=[1, 2]", {"a": [1, 2]}),
        ("a='x y'", {"a": "x y"}),
        ("a=bf16", {"a": "bf16"}),
        ("a=true", {"a": True}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_assignment_is_typed(text: str, table: dict[str, object]) -> None:
    assert assignment(text) == table


@pytest.mark.parametrize("text", ["a", "=1", "a=", " = "])
def test_assignment_needs_key_and_value(text: str) -> None:
    with pytest.raises(UserError, match="KEY=VALUE"):
        assignment(text)


def test_overlay_merges_tables_and_leaves_its_arguments() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert overlay(base, {"a": {"c": 4}, "d": {"e": 5}}) == {"a": {"b": 1, "c": 4}, "d": {"e": 5}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_find_suggests_the_nearest_name() -> None:
    assert find("studies", "placement", ".toml").is_file()
    with pytest.raises(UserError, match="'placment'") as caught:
        find("studies", "placment", ".toml")
    assert "'placement'" in caught.value.hint
    with pytest.raises(UserError, match="no file"):
        find("studies", "nowhere/x.toml", ".toml")
    assert {"placement", "se"} <= set(known("studies", ".toml"))


HOSTILE = [
    b"a = ",
    b"\xff\xfe",
    b"a = " + b"[" * 10_000,
    b"a = " + b"9" * 10_000,
    b"\0",
    b"# ten megabytes\n" * 700_000,
]


@pytest.mark.parametrize(
    "content", HOSTILE, ids=["cut off", "no UTF-8", "brackets", "digits", "zero", "large"]
)
def test_unreadable_toml_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"study\.toml"):
        read_toml(path)


def test_a_file_of_that_name_is_pointed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.toml").write_text("")
    with pytest.raises(UserError) as caught:
        find("studies", "short", ".toml")
    assert caught.value.hint == "did you mean short.toml?"
