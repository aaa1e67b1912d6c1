"""What the package offers by its own name is there."""

import pytest

import bam_search


@pytest.mark.parametrize("name", bam_search.__all__)
def test_each_public_name_is_what_it_says(name: str) -> None:
    assert getattr(bam_search, name).__name__ == name


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = bam_search.nothing
