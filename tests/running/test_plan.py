"""A plan is made once for a budget, kept with the study, continued, and kept to."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bam_search import run_study
from bam_search.errors import UserError
from bam_search.running import plan as planning
from bam_search.running.forecast import Calibration
from bam_search.running.plan import Plan, planned, stored_plan
from bam_search.running.prepare import Request, RunOptions, resolve_run
from bam_search.score.estimate import Speed
from bam_search.search.budget import Settings
from bam_search.search.store import PLAN_KEY
from bam_search.study.record import STUDY_FILE
from bam_search.tasks.classification.task import TOP1_ERROR
from bam_search.tasks.metric import Metric

SPEED = Calibration((Speed(0.1, 1e-3), Speed(0.2, 2e-3)), 1.0, at_once=2)
SETTINGS = Settings(images=9000, epochs=2, trials=20, seeds=3, most=6, scoring="scratch")
PLAN = Plan(3600.0, SETTINGS, SPEED, spent=100.0)


def request(budget: float | None, **flags: object) -> Request:
    return Request("placement", "cpu", (), dict(flags), RunOptions(budget=budget))


def test_a_plan_is_read_back_as_it_was_written() -> None:
    assert Plan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN
    everything = replace(PLAN, settings=replace(SETTINGS, images="all"))
    assert Plan.from_dict(json.loads(json.dumps(everything.to_dict()))) == everything


def test_the_clock_has_what_was_not_spent() -> None:
    began = time.monotonic()
    assert PLAN.clock(began).ends == pytest.approx(began + 3500)
    assert PLAN.after(1000).clock(began).ends == pytest.approx(began + 2500)


def test_more_seeds_and_test_samples_tell_smaller_differences() -> None:
    few = PLAN.smallest_difference(TOP1_ERROR, 10_000)
    more = replace(PLAN, settings=replace(SETTINGS, most=24)).smallest_difference(TOP1_ERROR, 2500)
    assert few == pytest.approx(more)
    assert few == pytest.approx(0.84, abs=0.02)
    assert PLAN.smallest_difference(Metric("mAP", "%"), 10_000) is None


@pytest.fixture
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "calibrated", lambda _ready, _at_least: SPEED)


@pytest.mark.usefixtures("known_speed")
def test_a_stored_plan_is_continued_and_what_is_set_stays(tmp_path: Path) -> None:
    asked = request(7200.0, data={"source": "generated"}, trials=33)
    ready = resolve_run(asked)
    table = {"identity": {}, PLAN_KEY: PLAN.to_dict()}
    (tmp_path / STUDY_FILE).write_text(json.dumps(table))
    continued, plan = planned(ready, asked, 50_000, 10_000, tmp_path)
    assert plan is not None
    assert (plan.budget, plan.spent) == (7200.0, 100.0)
    assert (continued.study.data.images, continued.study.recipe.epochs) == (9000, 2)
    assert continued.study.trials == 33
    assert continued.study.recipe.augment == "flip"  # of trainings of two epochs


@pytest.mark.usefixtures("known_speed")
def test_without_a_budget_nothing_is_planned_and_without_a_plan_one_is_made(tmp_path: Path) -> None:
    asked = request(None, data={"source": "generated"})
    ready = resolve_run(asked)
    assert planned(ready, asked, 50_000, 10_000, tmp_path) == (ready, None)
    with_budget = request(8 * 3600.0, data={"source": "generated"})
    longer, plan = planned(ready, with_budget, 50_000, 10_000, tmp_path)
    assert plan is not None
    assert plan.spent == 0
    assert longer.study.recipe.epochs == plan.settings.epochs > 2
    assert longer.study.recipe.augment == "crop-flip"
    assert plan.forecast(longer, 50_000, 10_000).seconds <= 8 * 3600


def test_a_broken_plan_is_a_sentence(tmp_path: Path) -> None:
    assert stored_plan(tmp_path) is None
    table = {"identity": {}, PLAN_KEY: {"budget": 3600}}
    (tmp_path / STUDY_FILE).write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"the plan in .* cannot be read"):
        stored_plan(tmp_path)


TINY = {
    "trials": 5,
    "workers": 1,
    "startup": 1,
    "data.images": 200,
    "recipe.epochs": 1,
    "finalists.seeds": 2,
    "finalists.most": 4,
}


@pytest.mark.usefixtures("known_speed")
def test_a_run_gives_its_time_to_seeds_and_goes_on_with_the_rest(
    tmp_path: Path, small_npz: Path
) -> None:
    began = time.monotonic()
    folder = tmp_path / "budget"
    asked = {"data": small_npz, "device": "cpu", "out": folder, "overrides": TINY}
    result = run_study("placement", budget=600.0, **asked)
    assert len(result.findings.finalists) >= 4
    seeds = [len(record.test_metrics) for record in result.records if record.is_tested]
    assert min(seeds) >= 2
    assert max(seeds) == 4  # there was time for all of them
    stored = stored_plan(folder)
    assert stored is not None
    assert 0 < stored.spent <= time.monotonic() - began
    again = run_study("placement", budget=600.0, **asked)
    assert again.records == result.records
