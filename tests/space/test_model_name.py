"""A model's name with arguments is text, and one text for each model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bam_search.errors import UserError
from bam_search.space.model_name import ModelName, canonical_name

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)
leaves = leaves.filter(lambda value: value not in (float("inf"), float("-inf")))
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}_", fullmatch=True), values, max_size=3))
def test_text_and_parse_are_inverse(arguments: dict[str, object]) -> None:
    name = ModelName("models/net.py", "Net", tuple(sorted(arguments.items())))
    assert ModelName.parse(name.text) == name
    assert canonical_name(name.text) == name.text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("net.py:Net()", "net.py:Net"),
        ("./net.py:Net( b = 1, a = 'x' )", "net.py:Net(a='x', b=1)"),
        ("a//b/net.py:Net(a=1,)", "a/b/net.py:Net(a=1)"),
        ("timm:vit.tag-1(x=[1,2,(3,)])", "timm:vit.tag-1(x=[1, 2, (3,)])"),
        ('torchvision:resnet18(x={"a":-1e-3})', "torchvision:resnet18(x={'a': -0.001})"),
        ("./my_space.py", "my_space.py"),
        ("small", "small"),
        ("", ""),
    ],
)
def test_names_of_one_model_have_one_text(text: str, canonical: str) -> None:
    assert canonical_name(text) == canonical
    assert canonical_name(canonical) == canonical


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("3", "the argument 3 of .* has no name"),
        ("*a", "has no name"),
        ("**{'a': 1}", "has no name"),
        ("a=1, a=2", "has the argument 'a' twice"),
        ("a=relu", "the argument a=relu of .* is no literal"),
        ("a=f(1)", r"the argument a=f\(1\) of .* is no literal"),
        ("b=1, a=__import__('os').getcwd()", "the argument a=__import__.* is no literal"),
        ("a={1, 2}", "the argument a=.* is no literal"),
        ("a=set()", "the argument a=.* is no literal"),
        ("a=1e999", "the argument a=1e309 of .* is no literal"),
        ("a=...", "the argument a=... of .* is no literal"),
        ("a=[x for x in (1, 2)]", "the argument a=.* is no literal"),
        ("a=1)(b=2", "cannot read the arguments"),
        ("a=1) + f(b=2", "cannot read the arguments"),
        ("a=", "cannot read the arguments"),
        ("a=" + "[" * 300, "cannot read the arguments"),
    ],
)
def test_what_is_no_literal_is_one_sentence(arguments: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ModelName.parse(f"net.py:Net({arguments})")
    assert caught.value.hint


@pytest.mark.parametrize("text", ["net.py:", ":Net", "net.py:Net(", "net.py:Net)", "timm:a b"])
def test_what_is_no_name_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"cannot read .* as a model"):
        ModelName.parse(text)
