"""What a study found, against numbers by hand from records of known values."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_record
from scipy import stats
from studied import (
    BASE,
    CHOICE_SPACE,
    DRAWN,
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
    written,
)

from bam_search.analysis import final_metrics
from bam_search.analysis.effects import site_effects
from bam_search.analysis.statistics import Noise, mean, noise
from bam_search.report.verify import verify
from bam_search.study.record import FIRST, RANDOM, Record


def test_finalists_are_the_tested_ones_with_their_gains_on_validation_and_test() -> None:
    records = [BASE, PAPER, WINNER, LUCKY]
    finalists = found(RECORDS).finalists
    assert [f.record for f in finalists] == records
    assert [f.test for f in finalists] == [mean(r.test_metrics) for r in records]
    assert [f.validation_gain for f in finalists] == [None, 5.0, 10.0, 7.0]
    assert [f.test_gain for f in finalists] == [
        None,
        pytest.approx(5.1),
        pytest.approx(9.1),
        pytest.approx(81.3 - 74.2333, abs=1e-3),
    ]
    # Rising costs and falling errors, but for the random one.
    assert [f.p_on_front for f in finalists] == [1, 1, 1, 0]
    assert found([FAILED, STOPPED, RISKY]).finalists == ()


def test_without_a_tested_reference_there_is_no_promise() -> None:
    finalists = found([WINNER, LUCKY]).finalists
    assert [(f.validation_gain, f.test_gain) for f in finalists] == [(None, None)] * 2


def test_the_winner_is_chosen_by_validation_before_any_test() -> None:
    better_on_test = replace(WORSE, **measured(60.0, 60.0, 60.0))
    assert found([*RECORDS, better_on_test]).recommended is WINNER
    assert found([BASE, LUCKY, RISKY]).recommended is None


def test_differences_are_paired_with_the_noise_of_all() -> None:
    findings = found(RECORDS)
    compared = findings.comparisons[WINNER.number]
    assert [one.other for one in compared] == [BASE, PAPER, LUCKY]
    assert [one.difference.mean for one in compared] == [
        pytest.approx(np.mean(np.subtract(WINNER.test_metrics, other.test_metrics)))
        for other in (BASE, PAPER, LUCKY)
    ]
    first = compared[0].difference
    assert first.low == pytest.approx(first.mean - half_width())
    assert first.high == pytest.approx(first.mean + half_width())
    assert [one.verdict for one in compared] == ["better"] * 3
    assert findings.compared_to_references(WINNER) == list(compared[:2])
    assert findings.comparison(WINNER, LUCKY) is compared[2]
    assert findings.comparison(RISKY, BASE) is None


def test_ablations_are_beside_the_winner() -> None:
    first, second = found(RECORDS).ablations
    assert [one.record for one in (first, second)] == WITHOUT
    assert (first.difference.mean, first.verdict) == (pytest.approx(3.0), "worse")
    assert (second.difference.mean, second.verdict) == (pytest.approx(0.0), "tie")
    assert found([BASE, *WITHOUT]).ablations == ()


def test_ablations_of_a_former_winner_are_not_set_beside_the_new_one() -> None:
    # A study that was extended: #8 is better than #2, whose ablations are still in the store.
    new = make_record(8, 65.0, 2.0, **measured(66.0, 66.0, 66.0))
    assert found([*RECORDS, new]).recommended is new
    assert found([*RECORDS, new]).ablations == ()


@pytest.fixture
def noises(monkeypatch: pytest.MonkeyPatch) -> list[Noise | None]:
    """All estimates of the noise that are made in a test."""
    made: list[Noise | None] = []

    def counted(records: Sequence[Record]) -> Noise | None:
        made.append(noise(records))
        return made[-1]

    monkeypatch.setattr(final_metrics, "noise", counted)
    return made


def test_the_noise_is_estimated_once_a_page(noises: list[Noise | None], tmp_path: Path) -> None:
    page = written(tmp_path, RECORDS)
    assert noises == [noise(RECORDS)]
    verify(page)
    assert len(noises) == 2  # from the records in the page, once more


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
    assert not any(answer.record.is_ablation for answer in findings.answers)
    assert findings.recommended is WINNER


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


def test_search_and_random_search_are_compared_by_cost_best_error_and_hypervolume() -> None:
    objectives = ("metric", "params_overhead")
    compared = found(RECORDS, objectives=objectives, startup=2).search_vs_random
    assert compared is not None
    # The search: WINNER (70, 1.5), RISKY (74, 1.2), WORSE.
    # The random search: the first two searched ones, DRAWN (79, 0.5), LUCKY.
    # Up to the worst of either, (79, 3.0).
    volume = (79 - 70) * (3 - 1.5) + (79 - 74) * (1.5 - 1.2)
    assert compared.search == (25, 70.0, pytest.approx(1.0))
    # What the random search adds is at the worst point or beaten.
    assert compared.random == (16, 70.0, pytest.approx(1.0))
    alone = found(RECORDS, objectives=objectives, startup=0).search_vs_random
    assert alone is not None
    assert alone.random == (8, 73.0, pytest.approx((79 - 73) * (3 - 2.5) / volume, abs=1e-6))
    assert alone.search == (25, 70.0, pytest.approx(1.0))
    assert found([r for r in RECORDS if not r.is_random]).search_vs_random is None
    assert found([BASE, FAILED, DRAWN]).search_vs_random is None


def test_where_attention_helps() -> None:
    helps = found(RECORDS).effects
    assert helps is not None
    assert (
        helps.records == 7
    )  # complete, in the choice space: ablations have no validation top-1 error
    effects = {effect.name: effect for effect in helps.effects}
    assert effects["layer1=bam"].records == 2
    assert effects["bam(r=8)"].records == 1
    assert effects["layer1=bam"].mean < 0
    assert "bam(d=4)" not in effects
    assert found(RECORDS[:6]).effects is None


def test_a_placement_of_the_search_and_the_random_search_counts_once() -> None:
    again = replace(WINNER, number=FIRST[RANDOM] + 2, origin=RANDOM)
    one, two = site_effects(RECORDS, CHOICE_SPACE), site_effects([*RECORDS, again], CHOICE_SPACE)
    assert one is not None
    assert two is not None
    assert (one.records, one.loo_rmse) == (two.records, two.loo_rmse)
    off = make_record(9, 60.0, 1.0, placement="layer1=se")
    three = site_effects([*RECORDS, off], CHOICE_SPACE)
    assert three is not None
    assert three.records == 7


def test_a_stopped_candidate_is_in_no_ranking() -> None:
    ranked = [finalist.record for finalist in found(RECORDS).finalists]
    for record in (STOPPED, LATER):
        assert record not in ranked
        assert not record.complete
