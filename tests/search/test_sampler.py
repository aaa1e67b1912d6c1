"""Proposals are on the menu, new, and depend on nothing but what was told, the seed and the number."""

from collections import Counter

import pytest

from bam_search.model.attach import resolve
from bam_search.model.build import sites_of
from bam_search.model.menu import menu
from bam_search.search.sampler import SAMPLERS, Proposer, trial_of
from bam_search.space.placement import Placement
from bam_search.space.search_space import Menu, SearchSpace, load_space

SPACE = load_space("small")
SITES = sites_of(SPACE)
MENU = menu(SPACE, SITES)


def proposer(sampler: str = "tpe", startup: int = 0, seed: int = 0, offered: Menu = MENU) -> Proposer:
    return Proposer(offered, lambda p: resolve(p, SITES), objectives=2, sampler=sampler, seed=seed, first=0, startup=startup)


def values(placement: Placement) -> list[float]:
    """A landscape of known truth: attention at layer2 with r = 8 is good, each site costs one."""
    text = placement.text
    return [10.0 - 5 * ("layer2=bam(r=8" in text), float(len(placement.choices))]


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_proposals_are_legal_and_new(sampler: str) -> None:
    chooser, taken = proposer(sampler, startup=5), set()
    for number in range(40):
        placement = chooser.propose(number, taken)
        assert placement is not None
        assert placement.id not in taken
        assert trial_of(MENU, placement, values(placement)) is not None
        assert placement == resolve(placement, SITES)
        taken.add(placement.id)
        chooser.tell(placement, values(placement))


def test_proposals_depend_on_what_was_told_the_seed_and_the_number() -> None:
    first = [proposer(startup=2).propose(number, set()) for number in range(4)]
    assert first == [proposer(startup=2).propose(number, set()) for number in range(4)]
    assert first != [proposer(startup=2, seed=1).propose(number, set()) for number in range(4)]
    # A proposer that was asked before, as in an uninterrupted run, proposes like a fresh one that was told the same.
    asked, fresh = proposer(), proposer()
    for number in range(12):
        placement = asked.propose(number, set())
        assert placement is not None
        for chooser in (asked, fresh):
            chooser.tell(placement, values(placement))
    assert asked.propose(99, set()) == fresh.propose(99, set())


def test_tpe_learns() -> None:
    def late_mean(sampler: str) -> float:
        """The mean of both objectives over the proposals after the startup, two seeds together."""
        found = []
        for seed in range(2):
            chooser, taken = proposer(sampler, startup=10, seed=seed), set()
            for number in range(40):
                placement = chooser.propose(number, taken)
                assert placement is not None
                taken.add(placement.id)
                chooser.tell(placement, values(placement))
                found += [sum(values(placement))] * (number >= 10)
        return sum(found) / len(found)

    assert late_mean("tpe") < late_mean("random") - 1


def test_startup_spreads_over_the_number_of_sites() -> None:
    chooser = proposer(startup=300)
    sizes = Counter(len(placement.choices) for number in range(300) if (placement := chooser.propose(number, set())))
    assert set(sizes) == {1, 2, 3, 4, 5, 6}
    assert min(sizes.values()) > 25


def test_a_small_space_is_exhausted_without_a_duplicate() -> None:
    space = SearchSpace("s", SPACE.backbone, sites=("layer1", "layer2"), modules={"se": {"r": (4, 16)}})
    chooser, taken = proposer(startup=2, offered=menu(space, SITES)), set()
    for number in range(20):
        placement = chooser.propose(number, taken)
        if placement is None:
            break
        taken.add(placement.id)
        chooser.tell(placement, values(placement))
    assert len(taken) == 9 == menu(space, SITES).size


def test_options_that_are_illegal_together_are_drawn_again() -> None:
    space = SearchSpace("s", SPACE.backbone, modules={"bam": {"branches": ("channel", "spatial"), "d": (2, 4)}})
    chooser = proposer("random", startup=10, offered=menu(space, SITES))
    for number in range(20):
        placement = chooser.propose(number, set())
        assert placement is not None
        assert placement == resolve(placement, SITES)


@pytest.mark.parametrize(
    ("text", "on_menu"),
    [
        ("none", True),
        ("bottleneck=bam", True),
        ("bottleneck=bam(r=8,d=2)", True),
        ("layer1=bam(n=2)", True),
        ("layer1=bam(n=3)", False),
        ("layer1=bam(r=2)", False),
        ("layer1=se", False),
        ("layer1.0.bn1=bam", False),
    ],
)
def test_only_what_is_on_the_menu_becomes_a_trial(text: str, on_menu: bool) -> None:
    assert (trial_of(MENU, resolve(text, SITES), [1.0, 2.0]) is not None) == on_menu
