"""A placement is text, and equal texts are equal placements."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bam_search.errors import UserError
from bam_search.space.placement import Choice, Placement

names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
values = st.one_of(st.integers(-99, 99), st.booleans(), st.sampled_from(["both", "sum", 0.5]))
choices = st.builds(Choice.of, names, st.dictionaries(names, values, max_size=3))
placements = st.builds(
    Placement.of,
    st.dictionaries(
        st.from_regex(r"layer[0-9](\.[0-9]\.bn[0-9])?", fullmatch=True), choices, max_size=4
    ),
)


@given(placements)
def test_text_and_parse_are_inverse(placement: Placement) -> None:
    again = Placement.parse(placement.text)
    assert again == placement
    assert again.id == placement.id


@given(placements)
def test_json_and_from_json_are_inverse(placement: Placement) -> None:
    assert Placement.from_json(placement.json) == placement


@given(placements)
def test_to_dict_and_from_dict_are_inverse(placement: Placement) -> None:
    table = placement.to_dict()
    assert Placement.from_dict(table) == placement
    assert Placement.from_json(json.dumps(table)) == placement
    assert Placement.from_dict(dict(placement.choices)) == placement


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({}, "none"),
        ({"layer1": "bam(r=8)"}, "layer1=bam(r=8)"),
        ({"bottleneck": " bam( r = 8, d = 2 ) "}, "bottleneck=bam(r=8,d=2)"),
        (
            {"layer2": "se", "layer1": {"module": "bam", "options": {"r": 8}}},
            "layer2=se layer1=bam(r=8)",
        ),
        ({r"/layer[12]\.\d+\.bn(2|3)/": "none"}, r"/layer[12]\.\d+\.bn(2|3)/=none"),
        ({"*.conv": Choice.of("bam", {"combine": "sum"})}, "*.conv=bam(combine=sum)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_dictionary_is_a_placement(table: dict[str, Any], text: str) -> None:
    assert Placement.from_dict(table).text == text
    assert Placement.from_dict(table) == Placement.parse(text)


@pytest.mark.parametrize(
    "table",
    [
        {"layer1": 3},
        {"layer1": None},
        {"layer1": ""},
        {"layer1": ["bam"]},
        {"layer1": "bam layer2=bam"},
        {"layer1": "bam(r=8"},
        {"layer1=bam layer2": "bam"},
        {"": "bam"},
        {" layer1": "bam"},
        {"layer 1": {"module": "bam"}},
        {"layer1": {"options": {}}},
        {"layer1": {"module": "bam", "r": 8}},
        {"layer1": {"module": "bam", "options": [8]}},
        {"layer1": {"module": "bam", "options": {"r": [8]}}},
        {"layer1": {"module": "bam", "options": {"r": None}}},
        {"layer1": {"module": "bam", "options": {"r": "8"}}},  # its text means the number
        {"layer1": {"module": "bam", "options": {"r": "a b"}}},
        {"layer1": Choice.of("bam", {"r": float("nan")})},
    ],
    ids=repr,
)
def test_a_dictionary_that_is_no_placement_is_one_sentence(table: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"a placement cannot have .* at '"):
        Placement.from_dict(table)


@pytest.mark.parametrize("text", ["", "[]", "3", '"layer1=bam"', "[" * 100_000], ids=range(5))
def test_json_that_is_no_placement_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="this JSON is no placement"):
        Placement.from_json(text)


def test_json_that_names_a_site_twice_is_refused() -> None:
    with pytest.raises(UserError, match="names 'layer1' twice"):
        Placement.from_json('{"layer1": "bam", "layer1": "se"}')


def test_a_regular_expression_is_a_target() -> None:
    placement = Placement.parse(r"/layer[12]\.\d+\.bn(2|3)/=bam(r=8) layer3=none")
    assert [target for target, _ in placement.choices] == [r"/layer[12]\.\d+\.bn(2|3)/", "layer3"]
    assert Placement.parse(placement.text) == placement


@given(placements, placements)
def test_ids_tell_placements_apart(a: Placement, b: Placement) -> None:
    assert (a.id == b.id) == (a.text == b.text)


def test_the_id_is_the_same_on_every_machine() -> None:
    assert Placement.parse("layer1=bam layer3=bam(r=8,d=2)").id == "98dd388e73"


def test_blanks_do_not_matter() -> None:
    assert (
        Placement.parse("  layer1 = bam( r = 8 , d = 2 )   layer2=se ").text
        == "layer1=bam(r=8,d=2) layer2=se"
    )


@pytest.mark.parametrize("text", ["", "none", "  none "])
def test_no_attention(text: str) -> None:
    assert Placement.parse(text) == Placement()
    assert Placement.parse(text).text == "none"


@pytest.mark.parametrize(
    "text",
    [
        "layer1",
        "layer1=",
        "=bam",
        "layer1=bam(r)",
        "layer1=bam(r=)",
        "layer1=bam(=8)",
        "layer1=bam(r=8",
        "layer1=bam)",
        "layer1==bam",
        "layer1=bam(r=8)(d=2)",
        "layer1=bam(r=8,r=4)",
        "layer1=bam layer1=se",
        "layer1=2bam",
        "none layer1=bam",
        "layer1=bam(r=(8))",
    ],
)
def test_what_is_no_placement_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Placement.parse(text)
    assert caught.value.hint
