"""What a study will train is what it then trains, as far as that is known before."""

from dataclasses import replace

import pytest

from bam_search.config import overlay
from bam_search.score.device import choose
from bam_search.search.study import Study, load_study
from bam_search.search.workload import Phase, Sizes, trainings, workload

SIZES = Sizes(fit=900, validation=90, train=990, test=300, references=4, sites=6, placements=10_000)


WITH_ALL_PHASES = {
    "trials": 16,
    "startup": 6,
    "random_baseline": True,
    "finalists": {"seeds": 3, "most": 5, "extra": 0.15, "leave_one_out": True},
}


def study(**changes: object) -> Study:
    return load_study("placement", choose("cpu"), overlay(WITH_ALL_PHASES, changes), [])


def by_name(found: tuple[Phase, ...]) -> dict[str, Phase]:
    return {phase.name: phase for phase in found}


def test_each_phase_has_its_trainings_and_their_images() -> None:
    found = by_name(workload(study(trials=24, startup=8, random_baseline=True), SIZES))
    assert [(name, phase.trainings) for name, phase in found.items()] == [
        ("search", 24),
        ("random baseline", 12),  # as many as were searched, less the startup that it shares
        (
            "finalists",
            48,
        ),  # 4 references, 9 of 20 searched and the best random one; 3 seeds each, and 15 % more
        ("recommended without each site", 12),  # 4 of 6 sites
    ]
    # Validation images take a third of a step each; references are validated after each epoch.
    assert found["search"].samples == 24 * 2 * 900 + (20 + 4 * 2) * 30
    assert found["random baseline"].samples == 12 * (2 * 900 + 30)
    assert found["finalists"].samples == 48 * (2 * 990 + 100)


@pytest.mark.parametrize(
    ("seeds", "most", "extra", "trainings"), [(3, 5, 0.5, 45), (3, 4, 0.5, 40), (5, 5, 0.5, 50)]
)
def test_further_seeds_end_at_the_most_that_a_finalist_has(
    seeds: int, most: int, extra: float, trainings: int
) -> None:
    finalists = {"seeds": seeds, "most": most, "extra": extra}
    found = by_name(workload(study(finalists=finalists, random_baseline=False), SIZES))
    assert found["finalists"].trainings == trainings


def test_a_comparison_of_references_searches_nothing() -> None:
    found = by_name(workload(study(trials=4), SIZES))
    assert {name: phase.trainings for name, phase in found.items()} == {
        "references": 4,
        "finalists": 14,
    }


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        (
            {"finalists": {"seeds": 5, "most": 5, "extra": 0.5}},
            "finalists",
            55,
        ),  # no seed beyond `most`
        ({"random_baseline": False}, "finalists", 34),
        ({"finalists": {"leave_one_out": False}}, "recommended without each site", None),
        (
            {"rungs": {"epochs": [1]}},
            "random baseline",
            12,
        ),  # 12 candidates of 3 epochs instead of 2, less 6
    ],
)
def test_keys_of_the_study_change_what_it_trains(
    changes: dict[str, object], name: str, expected: int | None
) -> None:
    found = by_name(workload(study(**changes), SIZES))
    assert (found[name].trainings if name in found else None) == expected


def test_each_rung_is_validated_once_and_a_reference_after_the_epochs_of_its_last() -> None:
    short = study(trials=24, rungs={"epochs": [1]}, recipe={"epochs": 4})
    found = by_name(workload(short, SIZES))
    assert found["search"].samples == 24 * 5 * 900 + (20 * 2 + 4 * 5) * 30


def test_a_space_that_is_smaller_than_the_study_ends_the_search_early() -> None:
    found = workload(study(trials=100), replace(SIZES, placements=10))
    assert by_name(found)["search"].trainings == 14
    assert trainings(found) == sum(phase.trainings for phase in found)
