"""Nothing that is written tells where on which machine it was written."""

import sys
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import studied
from studied import RECORDS, context

from bam_search.report.commands import Origin
from bam_search.report.portable import portable_text, portable_word
from bam_search.report.publish import publish


@pytest.mark.parametrize(
    ("text", "portable"),
    [
        (
            "CIFAR-100 (/home/me/data/cifar100.npz), sha256 08",
            "CIFAR-100 (cifar100.npz), sha256 08",
        ),
        ('File "/home/my name/x y.py", line 3', 'File "x y.py", line 3'),
        ('File "/env/lib/python3.11/site-packages/torch/nn/a.py"', 'File "torch/nn/a.py"'),
        ('File "/opt/python/lib/python3.12/json/decoder.py"', 'File "json/decoder.py"'),
        ('File "/src/bam_search/score/train.py"', 'File "bam_search/score/train.py"'),
        ("--out=/mnt/me/reports/ '--data=/my data/x.npz'", "--out=reports '--data=x.npz'"),
        (r"at C:\Users\me\x.npz", "at x.npz"),
        ("--storage sqlite:////home/me/t.db", "--storage sqlite:///t.db"),
    ],
)
def test_of_an_absolute_path_its_name_stays(text: str, portable: str) -> None:
    assert portable_text(text) == portable
    assert portable_text(portable) == portable


@pytest.mark.parametrize(
    "text",
    [
        "https://arxiv.org/abs/1807.06514",
        "postgresql://me@host/studies",
        "reports/placement, ../data/x.npz and ~/x",
        r"layer1=bam /layer[34]\..*bn3/=se /layer1/,/layer2/=bam",
        "52 images/s, conv/fc, and/or",
    ],
)
def test_what_is_no_absolute_path_stays(text: str) -> None:
    assert portable_text(text) == text
    assert all(portable_word(word) == word for word in text.split())


@pytest.mark.parametrize(
    ("word", "portable"),
    [
        ("/my data/x y.npz", "x y.npz"),
        ("/home/me/net.py:Net(depth=3)", "net.py:Net(depth=3)"),
        ("search.modules.coord.from=/home/me/c.py:Coord", "search.modules.coord.from=c.py:Coord"),
    ],
)
def test_a_word_of_a_command_is_a_path_with_its_spaces(word: str, portable: str) -> None:
    assert portable_word(word) == portable


def test_a_report_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    try:
        studied.written(tmp_path / "nowhere", [])
    except FileNotFoundError:
        failure = traceback.format_exc()
    assert str(tmp_path) in failure
    here = [str(tmp_path / name) for name in ("study", "net.py:f", "x.npz", "weights.pt")]
    about = context(
        warning=f"These are {here[2]}.",
        state=f"Failed: {here[2]} cannot be read",
        about={"Command": f"run --data {here[2]}", "Backbone": here[1]},
        origin=Origin(*here),
    )
    records = [*RECORDS, replace(RECORDS[6], number=90, failure=failure, test_failure=failure)]
    publish(tmp_path, about, records)
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert "net.py" in text or path.name != "index.html"
        for folder in (tmp_path, Path.home(), sys.prefix, Path(__file__).parent):
            assert str(folder) not in text
