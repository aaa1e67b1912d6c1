"""Class by class: what is told apart is there, intervals hold together, the page says it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from conftest import make_record
from studied import context, found, html_of, written

from bam_search.analysis.by_class import ByClass, by_class
from bam_search.report.class_table import class_table
from bam_search.report.verify import verify
from bam_search.study.record import REFERENCE, Record

NAMES = ("ant", "bee", "cat")


def record(number: int, errors: np.ndarray, samples: int = 100, **fields: object) -> Record:
    """A record with these errors, (seeds, classes), in percent."""
    return make_record(
        number,
        50.0,
        float(number),
        test_metrics=tuple(errors.mean(1).tolist()),
        test_seeds=tuple(range(len(errors))),
        test_by_class=tuple(map(tuple, errors.tolist())),
        test_class_samples=(samples,) * errors.shape[1],
        **fields,
    )


def none(errors: np.ndarray) -> Record:
    return record(0, errors, origin=REFERENCE, name="no attention", placement="none")


def trained(seeds: int, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(seeds, classes): errors in percent of 100 samples with these probabilities."""
    return 1.0 * rng.binomial(100, shares, (seeds, len(shares)))


def test_a_clear_gain_and_a_clear_loss_are_told_apart_and_come_first_and_last() -> None:
    base = np.array([[30.0, 40, 50], [31, 39, 52], [29, 41, 49]])
    ours = base + np.array([[-20.0, 1, 15], [-21, -1, 16], [-19, 0, 14]])
    result = by_class(record(1, ours), none(base), True)
    assert result is not None
    assert [one.number for one in result.classes] == [0, 1, 2]
    assert [one.verdict for one in result.classes] == ["better", "unclear", "worse"]
    assert (result.told, result.seeds) == (2, 3)
    table = class_table(result, NAMES, "image")
    assert table is not None
    assert table.sentence == (
        "layer1=bam (#1) beside no attention, 3 seeds: "
        "of 3 classes, 2 told apart from noise, better on ant; worse on cat."
    )
    assert list(table.table["class"]) == ["ant", "bee", "cat"]
    assert table.table["difference"][0].startswith("-20.00 (")
    larger = by_class(
        record(1, ours, larger_is_better=True), replace(none(base), larger_is_better=True), True
    )
    assert larger is not None
    assert [one.verdict for one in larger.classes] == ["better", "unclear", "worse"]
    assert [one.number for one in larger.classes] == [2, 1, 0]


def test_intervals_hold_for_all_classes_together() -> None:
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        shares = rng.uniform(0.05, 0.7, 40)
        result = by_class(record(1, trained(3, shares, rng)), none(trained(3, shares, rng)), True)
        assert result is not None
        missed += result.told > 0
    assert missed / 200 < 0.09  # 0.05, and three standard errors


def test_two_seeds_one_seed_and_near_chance_tell_nothing() -> None:
    base = np.full((2, 3), 50.0) + np.eye(2, 3)
    for ours, theirs in ((base - 40, base), (base[:1] - 40, base[:1])):
        result = by_class(record(1, ours), none(theirs), True)
        assert result is not None
        assert result.told == 0
    three = np.full((3, 3), 50.0) + np.eye(3)
    assert untold(by_class(record(1, three - 40), none(three), False))
    assert not untold(by_class(record(1, three - 40), none(three), True))


def untold(result: ByClass | None) -> bool:
    assert result is not None
    return result.told == 0


def test_only_common_seeds_and_classes_with_samples_count() -> None:
    base = np.full((3, 2), 50.0)
    ours = replace(record(1, base - 10), test_seeds=(1, 2, 3), test_class_samples=(100, 0))
    result = by_class(ours, none(base), True)
    assert result is not None
    assert (result.seeds, [one.number for one in result.classes]) == (2, [0])
    apart = replace(ours, test_seeds=(7, 8, 9))
    assert by_class(apart, none(base), True) is None
    assert by_class(make_record(1, 50.0, 1.0), none(base), True) is None


def test_the_page_says_it_and_records_of_before_are_read() -> None:
    base = np.array([[30.0, 40, 50], [31, 39, 52], [29, 41, 49]])
    records = [none(base), record(1, base - [[20.0, 0, 0], [21, 1, -1], [19, 0, 0]])]
    html = html_of(records, classes=("<b>ant</b>", "bee", "cat"))
    assert "2 told apart" not in html
    assert "better on &lt;b&gt;ant&lt;/b&gt;" in html
    before = records[1].to_dict()
    for key in ("val_further", "test_further", "test_by_class", "test_class_samples"):
        del before[key]
    assert Record.from_dict(before).test_by_class == ()
    assert Record.from_dict(json.loads(json.dumps(records[1].to_dict()))) == records[1]
    assert found(records).by_class is not None
    assert found([make_record(0, 1.0, 0.0)]).by_class is None
    assert context().classes == ()


def test_the_check_of_a_page_finds_classes_that_do_not_add_up(tmp_path: Path) -> None:
    base = np.array([[30.0, 40, 50], [31, 39, 52], [29, 41, 49]])
    records = [none(base), record(1, base - 10)]
    assert not any("classes" in text for text in verify(written(tmp_path, records)).wrong)
    forged = replace(records[1], test_by_class=((1.0, 30.0, 40.0), *records[1].test_by_class[1:]))
    (wrong,) = (
        text for text in verify(written(tmp_path, [records[0], forged])).wrong if "classes" in text
    )
    assert wrong == "#1: its classes have 23.67 % errors together with seed 0, not 30.00 %"
