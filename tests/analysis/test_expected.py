"""What the model of effects expects of placements that nobody has trained."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_record
from studied import context, written

from bam_search.analysis.effects import SiteModel
from bam_search.analysis.expected import Added, Expected, expected_best
from bam_search.analysis.findings import Findings
from bam_search.analysis.statistics import noise
from bam_search.report.sentences import WORTH, expected_lines
from bam_search.report.tables import expected_table
from bam_search.report.verify import verify
from bam_search.space.placement import Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import Record

SPACE = ChoiceSpace(
    {f"layer{i}": {"bam": {"r": (4, 16), "d": (1, 4)}} for i in range(1, 4)},
    {"bam": {"r": 16, "d": 4}},
)
ADDED: Added = {
    "layer1": ((40, 300), (40, 300), (10, 100), (10, 100)),
    "layer2": ((80, 200), (80, 200), (20, 70), (20, 70)),
    "layer3": ((160, 130), (160, 130), (40, 30), None),
}
HELPS = {"layer1": -0.5, "layer2": -1.0, "layer3": -2.0}
CHEAP = "layer3=bam(d=1)"


def records(larger_is_better: bool = False) -> list[Record]:
    """Twenty placements at random and none, each with three tests; attention helps everywhere."""
    rng = np.random.default_rng(0)
    sign = -1 if larger_is_better else 1
    texts = ["none", "layer1=bam", "layer1=bam layer2=bam", CHEAP]
    while len(texts) < 21:
        chosen = [f"{s}=bam(r={r},d=1)" for s in HELPS for r in (4, 16) if rng.random() < 0.3]
        text = " ".join({part.partition("=")[0]: part for part in chosen}.values())
        if text and text not in texts:
            texts.append(text)
    made = []
    for number, text in enumerate(texts):
        true = 70 + sum(gain for site, gain in HELPS.items() if f"{site}=" in text)
        tests = tuple(sign * (true + rng.normal(0, 0.2)) for _ in range(3))
        reference = number < 4
        made.append(
            make_record(
                number,
                sign * (true + rng.normal(0, 0.2)),
                1.0,
                placement=text,
                id=Placement.parse(text).id,
                origin="reference" if reference else "search",
                name=text if reference else "",
                larger_is_better=larger_is_better,
                test_metrics=tests,
                test_seeds=(7, 8, 9),
            )
        )
    return made


def made_of(text: str, number: int, *tests: float) -> Record:
    """A record of this placement, tested with these values."""
    seeds = tuple(range(len(tests)))
    fields = {"id": Placement.parse(text).id, "test_metrics": tests, "test_seeds": seeds}
    return make_record(number, 60.0, 1.0, placement=text, **fields)


def expected(
    made: Sequence[Record], beside: Sequence[str], added: Added = ADDED
) -> tuple[Expected, ...]:
    model, spread = SiteModel.of(made, SPACE), noise(made)
    assert model is not None
    assert spread is not None
    others = [next(r for r in made if r.placement == text) for text in beside]
    return expected_best(model, spread.sd, added, others, made)


def by_hand(made: Sequence[Record], limit: int) -> str:
    """The placement of least expected value within the limit, of all there are."""
    model = SiteModel.of(made, SPACE)
    assert model is not None
    counts = [range(1 + len(choices)) for choices in model.encoder.choices]
    best, least = None, np.inf
    for vector in itertools.product(*counts):
        costs = [ADDED[site][j - 1] for site, j in zip(SPACE.sites, vector, strict=True) if j]
        value = float(model.changes(np.array(vector)).mean())
        possible = all(costs) and sum(cost[1] for cost in costs if cost) <= limit
        if possible and value < least:
            best, least = vector, value
    assert best is not None
    return SPACE.shortened(model.encoder.placement(best)).text


@pytest.mark.parametrize(("text", "limit"), [("layer1=bam", 100), ("layer1=bam layer2=bam", 170)])
def test_the_best_at_no_more_macs_is_that_of_all_placements(text: str, limit: int) -> None:
    made = records()
    (one,) = expected(made, [text])
    assert one.placement.text == by_hand(made, limit)
    assert one.macs <= limit
    assert one.difference < 0
    assert one.low < one.difference < one.high
    assert one.chance > 0.9


def test_no_attention_and_what_is_best_itself_have_nothing_better() -> None:
    made = records()
    assert expected(made, ["none"]) == ()
    (one,) = expected(made, ["layer1=bam"])
    model = SiteModel.of(made, SPACE)
    assert model is not None
    best = made_of(one.placement.text, 99)
    assert expected_best(model, 0.2, ADDED, [best], made) == ()
    elsewhere = made_of("layer9=bam", 99)
    assert expected_best(model, 0.2, ADDED, [elsewhere], made) == ()


def test_a_placement_that_was_trained_is_told() -> None:
    made = records()
    (one,) = expected(made, ["layer1=bam"])
    model = SiteModel.of(made, SPACE)
    assert model is not None
    trained, tested = made_of(one.placement.text, 98), made_of(one.placement.text, 99, 70.0)
    stopped = replace(trained, number=97, val_metric=None)
    known = [record for record in made if record.id != one.placement.id]
    for more, told in (
        ([], None),
        ([stopped], None),
        ([stopped, trained], trained),
        ([trained, tested], tested),
    ):
        (again,) = expected_best(model, 0.2, ADDED, [made[1]], [*known, *more])
        assert again.placement == one.placement
        assert again.record is told


def test_a_choice_that_is_not_possible_is_not_expected() -> None:
    least = dict.fromkeys(HELPS, ((1, 50), (1, 50), (1, 50), None))
    (one,) = expected(records(), ["layer1=bam(r=4,d=1)"], least)
    assert [site for site, _ in one.placement.choices] == ["layer3"]
    assert all(choice.text != "bam" for _, choice in one.placement.choices)


def test_where_larger_is_better_the_difference_is_positive() -> None:
    (lower,), (higher,) = (
        expected(records(), ["layer1=bam"]),
        expected(records(larger_is_better=True), ["layer1=bam"]),
    )
    assert higher.placement == lower.placement
    assert higher.difference == pytest.approx(-lower.difference)
    assert higher.chance == pytest.approx(lower.chance)


def test_the_page_has_them_and_can_be_checked(tmp_path: Path) -> None:
    fields = {
        "choice_space": SPACE,
        "added": ADDED,
        "base": {"params": 10_000, "macs_conv_fc": 100_000},
    }
    made = records()
    about = context(**fields)
    findings = Findings.of(made, about)
    assert findings.expected
    table = expected_table(findings, about.base)
    assert list(table["at no more MACs than"])[:2] == ["layer1=bam", "layer1=bam layer2=bam"]
    html = written(tmp_path, made, **fields).read_text(encoding="utf-8")
    assert "What the model expects to be better" in html
    assert findings.expected[0].placement.text in html
    assert not any("expected" in text for text in verify(tmp_path / "index.html").wrong)
    unknown = Findings.of(made, context(**{**fields, "added": {}}))
    assert unknown.expected == ()


def test_only_what_is_worth_a_test_is_said() -> None:
    about = context(choice_space=SPACE, added=ADDED)
    findings = Findings.of(records(), about)
    worth = [one for one in findings.expected if one.chance >= WORTH]
    lines = expected_lines(findings)
    assert len(lines) == len(worth) > 0
    assert f"Worth a test: {worth[0].placement.text}, by the model of effects -" in lines[0]
    assert lines[0].endswith("beside layer1=bam, for no more MACs")
    unsure = tuple(replace(one, chance=WORTH - 0.01) for one in findings.expected)
    assert expected_lines(replace(findings, expected=unsure)) == []
    tested = made_of(worth[0].placement.text, 99, 60.0)
    known = tuple(replace(one, record=tested) for one in findings.expected)
    assert expected_lines(replace(findings, expected=known)) == []


def test_nothing_is_expected_where_the_model_predicts_nothing() -> None:
    rng = np.random.default_rng(0)
    made = [
        replace(
            record,
            val_metric=70 + rng.normal(),
            test_metrics=tuple(70 + rng.normal() for _ in range(3)),
        )
        for record in records()
    ]
    assert Findings.of(made, context(choice_space=SPACE, added=ADDED)).expected == ()
