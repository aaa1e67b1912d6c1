"""Search spaces come from files, and say how large they are."""

from pathlib import Path

import pytest

from bam_search.errors import UserError
from bam_search.space.search_space import ChoiceSpace, load_space


def test_menu_size_counts_every_placement() -> None:
    choice_space = ChoiceSpace(
        {"a": {"bam": {"r": (4, 8), "d": (1, 2, 4)}, "se": {"r": (4,)}}, "b": {"bam": {"r": (4,)}}},
        {},
    )
    assert choice_space.size == (1 + 6 + 1) * (1 + 1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "space"),
        ("def space(): return 3", "returned int"),
        ("def space(): raise ValueError('deliberate')", "deliberate"),
        ("import nonexistent_module", "nonexistent_module"),
        ("def space(:", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("def space(): raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_broken_space_file_is_one_sentence(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(UserError, match=message):
        load_space(str(path))


def test_a_users_own_file_is_a_space(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\nfrom bam_search.space.search_space import SearchSpace\n"
        "def space():\n    return SearchSpace('mine', lambda classes: nn.Conv2d(3, classes, 3))\n"
    )
    assert load_space(str(path)).name == "mine"
