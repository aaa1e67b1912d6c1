"""Where attention helps: each effect as a row, and as the colour of a site in a drawing.

What cannot be told from noise is grey, in both. Where the model predicts no better than a mean,
there is nothing to draw, and the page says so instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bam_search.analysis.effects import Effect, SiteEffects
from bam_search.analysis.findings import Findings, SiteCheck
from bam_search.report.forest import WIDTH, Forest, Scale, forest
from bam_search.report.tables import difference_text
from bam_search.tasks.metric import Metric

STEPS = 3
"""How many strengths of colour there are for helping, and as many for hurting."""


@dataclass(frozen=True)
class EffectRow:
    """An effect as text and as a plot; `without` is what leaving it out did, if that is known."""

    name: str
    forest: Forest
    mean: str
    interval: str
    records: int
    without: str


@dataclass(frozen=True)
class Where:
    """The section.

    Attributes:
        silent: why there is no model to draw; empty if there is one.
        rows: the effects.
        ticks: the numbers of their plots, and their pixels, of `width`.
        agreement: how effects and ablations agree; empty without ablations.
    """

    silent: str
    rows: tuple[EffectRow, ...]
    ticks: tuple[tuple[float, str], ...]
    width: int
    agreement: tuple[str, ...]


def where(findings: Findings) -> Where | None:
    """The section; None where nothing is known."""
    effects = findings.effects
    if effects is None:
        return None
    if not effects.predicts:
        return Where(silence(findings.metric, effects), (), (), WIDTH, ())
    scale = Scale.of(effects.effects)
    without = {
        check.effect.name: difference_text(check.ablation)
        for check in findings.checks
        if check.effect is not None
    }
    rows = tuple(
        _row(findings.metric, effect, scale, without.get(effect.name, ""))
        for effect in effects.effects
    )
    return Where("", rows, tuple(scale.ticks), WIDTH, _agreement(findings))


def silence(metric: Metric, effects: SiteEffects) -> str:
    """Why the effects are not shown."""
    error, of_mean = (
        metric.with_difference_unit(metric.text(value))
        for value in (effects.error, effects.error_of_mean)
    )
    return (
        f"Not known: an additive model of sites, modules and options predicts the {metric.name} of "
        f"placements that it was not shown no better than their mean does: it misses them by "
        f"{error}, and the mean by {of_mean}. More candidates or longer trainings could tell."
    )


def kind(metric: Metric, effect: Effect) -> str:
    """'better' where it helps, 'worse' where it hurts, 'unclear' where that cannot be told."""
    if not effect.is_told:
        return "unclear"
    return "better" if metric.minimised(effect.mean) < 0 else "worse"


def _row(metric: Metric, effect: Effect, scale: Scale, without: str) -> EffectRow:
    return EffectRow(
        name=effect.name,
        forest=forest(scale, effect, kind(metric, effect)),
        mean=metric.signed(effect.mean),
        interval=metric.range(effect.low, effect.high),
        records=effect.records,
        without=without,
    )


def _agreement(findings: Findings) -> tuple[str, ...]:
    """A sentence for each site where they disagree; one that says so where they do not."""
    if not findings.checks:
        return ()
    apart = [one for one in findings.checks if one.agreement == "disagree"]
    if apart:
        return tuple(_disagreement(findings.metric, check) for check in apart)
    both = sum(check.agreement == "agree" for check in findings.checks)
    if not both:
        return ("At no site can both be told from noise, so they do not contradict each other.",)
    return (f"Both can be told from noise at {both} of {len(findings.checks)} sites, and agree.",)


def _disagreement(metric: Metric, check: SiteCheck) -> str:
    assert check.effect is not None
    helps = {True: "helps", False: "hurts"}
    by_model = helps[metric.minimised(check.effect.mean) < 0]
    by_ablation = helps[check.ablation.verdict == "worse"]
    return (
        f"They disagree at {check.site}: it {by_ablation} in {check.ablation.other.placement}, and "
        f"{by_model} by the model, which is of all settings of {check.effect.place[1]} there and "
        "adds up sites as if none depended on another."
    )


def heat(metric: Metric, effects: SiteEffects | None) -> dict[str, Any]:
    """The colours of a drawing for each module: `modules` has each site's class and words.

    `key` has the classes and what they mean, strongest help first. Empty without a model that
    predicts.
    """
    if effects is None or not effects.predicts:
        return {}
    at_sites = [effect for effect in effects.effects if not effect.is_of_option]
    most = max((abs(one.mean) for one in at_sites if one.is_told), default=0.0)
    modules: dict[str, dict[str, tuple[str, str]]] = {}
    for effect in at_sites:
        site, module = effect.place
        words = f"{effect.name}: {metric.with_difference_unit(metric.signed(effect.mean))}"
        modules.setdefault(module, {})[site] = (_class(metric, effect, most), words)
    return {"modules": modules, "key": _key(metric, most)}


def _class(metric: Metric, effect: Effect, most: float) -> str:
    name = {"better": "helps", "worse": "hurts"}.get(kind(metric, effect))
    if name is None:
        return "untold"
    return f"{name}{min(STEPS, 1 + int(STEPS * abs(effect.mean) / most))}"


def _key(metric: Metric, most: float) -> Sequence[tuple[str, str]]:
    """The classes of the drawing and the numbers that they stand for."""
    numbers = [
        (step, _between(metric, most * (step - 1) / STEPS, most * step / STEPS))
        for step in range(1, STEPS + 1)
        if most
    ]
    return [
        *((f"helps{step}", f"helps, {text}") for step, text in reversed(numbers)),
        ("untold", "cannot be told from noise"),
        *((f"hurts{step}", f"hurts, {text}") for step, text in numbers),
    ]


def _between(metric: Metric, low: float, high: float) -> str:
    return metric.with_difference_unit(f"{metric.text(low)} to {metric.text(high)}")


def modules_of(choice_space: Mapping[str, Mapping[str, Any]], placed: Sequence[str]) -> list[str]:
    """Every attention module that can be chosen or was placed, each once: each has a colour."""
    chosen = (module for modules in choice_space.values() for module in modules)
    return list(dict.fromkeys([*chosen, *placed]))
