"""What a study found, against numbers by hand from records of known values."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_record
from scipy import stats
from studied import (
    BASE,
    CHOICE_SPACE,
    FAILED,
    LATER,
    LUCKY,
    PAPER,
    RECORDS,
    RISKY,
    STOPPED,
    WINNER,
    WITHOUT,
    WORSE,
    found,
    half_width,
    measured,
)

from bam_search.analysis.effects import Effect, SiteModel
from bam_search.report.sentences import foresight_lines
from bam_search.study.record import FIRST, RANDOM, Record


def test_finalists_are_the_tested_ones_the_cheapest_first() -> None:
    records = [BASE, PAPER, WINNER, LUCKY]
    finalists = found(RECORDS).finalists
    assert [f.record for f in finalists] == records
    for finalist, record in zip(finalists, records, strict=True):
        assert finalist.test.mean == pytest.approx(np.mean(record.test_metrics))
        assert finalist.test.sd == pytest.approx(np.std(record.test_metrics, ddof=1))
    # Rising costs and falling errors, but for the random one.
    assert [f.p_on_front for f in finalists] == [1, 1, 1, 0]
    assert [f.is_cheapest for f in finalists] == [True, False, False, False]
    assert found([FAILED, STOPPED, RISKY]).finalists == ()


def test_of_two_that_cost_the_same_none_is_the_cheapest() -> None:
    twin = replace(BASE, number=9, id="twin", name="twin")
    assert not any(finalist.is_cheapest for finalist in found([BASE, twin, PAPER]).finalists)


def test_differences_are_of_all_seeds_with_the_noise_of_all() -> None:
    findings = found(RECORDS)
    compared = findings.comparisons[WINNER.number]
    assert [one.other for one in compared] == [BASE, PAPER, LUCKY]
    # So far apart that nothing is drawn back by more than a hair.
    assert [one.difference.mean for one in compared] == [
        pytest.approx(np.mean(np.subtract(WINNER.test_metrics, other.test_metrics)), abs=0.05)
        for other in (BASE, PAPER, LUCKY)
    ]
    first = compared[0].difference
    assert first.high is not None
    assert first.low is not None
    # The spread of placements is estimated too, so it is somewhat wider than the classical one.
    assert half_width() <= (first.high - first.low) / 2 <= 1.3 * half_width()
    assert [one.verdict for one in compared] == ["better"] * 3
    assert findings.compared_to_references(WINNER) == list(compared[:2])
    assert findings.comparison(WINNER, LUCKY) is compared[2]
    assert findings.comparison(RISKY, BASE) is None


def test_ablations_are_beside_what_was_recommended_before_them() -> None:
    findings = found(RECORDS)
    first, second = findings.ablations
    assert [one.record for one in (first, second)] == WITHOUT
    assert (first.difference.mean, first.verdict) == (pytest.approx(3.0, abs=0.05), "worse")
    assert (second.difference.mean, second.verdict) == (pytest.approx(0.0, abs=0.05), "unclear")
    assert found([BASE, *WITHOUT]).ablations == ()
    # One that is as good, and cheaper, is then recommended itself.
    assert findings.recommendation is not None
    assert findings.recommendation.record is WITHOUT[1]


def test_ablations_of_a_former_recommendation_are_not_set_beside_the_new_one() -> None:
    # A study that was extended: #8 is better than #2, whose ablations are still in the store.
    new = make_record(8, 65.0, 2.0, **measured(66.0, 66.0, 66.0))
    findings = found([*RECORDS, new])
    assert findings.recommendation is not None
    assert findings.recommendation.record is new
    assert findings.ablations == ()


def test_findings_keep_what_they_were_made_of_in_order() -> None:
    findings = found(RECORDS)
    assert list(findings.records) == RECORDS
    assert [record.number for record in findings.front] == [0, 1, 3, 2]
    outcomes = findings.outcomes
    assert (outcomes.main, outcomes.others) == (8, 4)
    assert (outcomes.complete, outcomes.stopped, outcomes.failed) == (7, 2, 1)


def test_no_ablation_is_a_finalist_whatever_it_has() -> None:
    # Even one that had a validation top-1 error of its own.
    complete = [replace(record, val_metric=50.0, val_samples=400) for record in WITHOUT]
    findings = found([*RECORDS[:-2], *complete])
    assert not any(finalist.record.is_ablation for finalist in findings.finalists)


def test_what_the_rungs_did() -> None:
    stops = found(RECORDS).stopping
    assert stops is not None
    assert (stops.stopped, stops.control) == (2, 2)
    assert stops.wrong == 1  # RISKY is on the front, WORSE is not
    # Search only: WINNER 7, RISKY 7, STOPPED 1, LATER 3, FAILED 0, WORSE 7.
    # Without rungs these five, FAILED left out, have 4 each.
    assert (stops.spent, stops.without) == (25, 20)
    assert [rung.epochs for rung in stops.rungs] == [1, 2]
    complete = (BASE, PAPER, WINNER, RISKY, WORSE)
    full = [record.val_metric for record in complete]
    for i, rung in enumerate(stops.rungs):
        assert rung.agreement is not None
        assert rung.agreement.n == 5
        short = [record.rung_metrics[i] for record in complete]
        assert rung.agreement.mean == pytest.approx(stats.kendalltau(short, full).statistic)
    without_rungs = [replace(r, rung_epochs=(), rung_metrics=()) for r in (BASE, WINNER)]
    assert found(without_rungs).stopping is None


def test_where_attention_helps() -> None:
    helps = found(RECORDS).effects
    assert helps is not None
    # Complete and in the choice space: ablations have no validation.
    assert helps.records == 7
    # Their validations, and the final trainings: BASE, PAPER, WINNER, LUCKY and two ablations.
    assert helps.trainings == 7 + 3 * 6
    effects = {effect.name: effect for effect in helps.effects}
    assert effects["layer1=bam"].records == 2
    assert effects["bam(r=8)"].records == 2  # WINNER, and an ablation of it
    assert effects["layer1=bam"].mean < effects["layer1=bam"].high < 0
    assert "bam(d=4)" not in effects
    assert found(RECORDS[:6]).effects is None


def test_a_placement_of_the_search_and_the_random_search_counts_once() -> None:
    again = replace(RISKY, number=FIRST[RANDOM] + 2, origin=RANDOM)
    off = make_record(9, 60.0, 1.0, placement="layer1=se")
    one, two, three = (
        SiteModel.of([*RECORDS, *more], CHOICE_SPACE) for more in ([], [again], [off])
    )
    assert one is not None
    assert two is not None
    assert three is not None
    assert one.effects == two.effects
    assert three.records == 7


def test_a_stopped_candidate_is_in_no_ranking() -> None:
    ranked = [finalist.record for finalist in found(RECORDS).finalists]
    for record in (STOPPED, LATER):
        assert record not in ranked
        assert not record.complete


def test_the_overview_has_all_that_was_tested_beside_no_attention() -> None:
    overview = found(RECORDS).overview
    assert overview is not None
    assert overview.baseline is BASE
    assert overview.best is WINNER
    assert overview.recommended is WITHOUT[1]
    assert overview.best_beside is not None
    assert overview.best_beside.verdict == "unclear"
    assert overview.random_beside is not None
    assert overview.random_beside.other is LUCKY
    assert [one.record.tag for one in overview.standings] == ["0", "A2000", "1", "A2001", "2", "R1"]
    assert overview.standing(BASE).beside is None
    front = overview.fronts["params_overhead"]
    values = [overview.standing(record).expected for record in front]
    assert values == sorted(values, reverse=True)
    assert front[0] is BASE
    assert found([FAILED]).overview is None


@pytest.mark.parametrize(
    ("mean", "agreement"),
    [(-2.0, "agree"), (2.0, "disagree"), (-0.1, "unclear"), (None, "unclear")],
)
def test_ablations_and_effects_agree_or_not(mean: float | None, agreement: str) -> None:
    """Without layer1 the error is greater: attention helps there."""
    check = found(RECORDS).checks[0]
    assert (check.site, check.ablation.verdict) == ("layer1", "worse")
    effect = None if mean is None else Effect("layer1=bam", mean, mean - 0.5, mean + 0.5, 3)
    assert replace(check, effect=effect).agreement == agreement


def test_the_search_is_judged_by_how_it_ranks_the_finalists() -> None:
    def tested(number: int, seen: float, test: float) -> Record:
        return make_record(
            number, seen, number, test_metrics=(test - 0.1, test, test + 0.1), test_seeds=(1, 2, 3)
        )

    seen, tests = [80.0, 79.0, 78.0, 77.0, 76.0], [70.0, 69.0, 68.0, 66.0, 67.0]
    records = [tested(i, a, b) for i, (a, b) in enumerate(zip(seen, tests, strict=True))]
    tau = found(records).foresight
    assert tau is not None
    assert tau.mean == pytest.approx(stats.kendalltau(seen, tests).statistic)
    (line,) = foresight_lines(tau)
    assert line.startswith(
        "The search ranked these 5 as their tests do with Kendall's tau 0.80 (90 %"
    )
    assert found(records[:3]).foresight is None
    assert foresight_lines(None) == []
