"""Whether what a study says is true: whole studies are simulated on placements of known truth.

    python -m benchmarks.simulated [--studies 200] [--truths nothing small real]
        [--set trials=24 ...] [--validation-noise 0.9] [--final-noise 0.41] [--seed-effect 0.7]
        [--parts 1 0.5 0.5 0.5] [--workers 1] [--out FILE.json]

The search, its random baseline, the choice of finalists and their rounds are the study's own code,
by default the CPU variant of the placement study, whose keys `--set` changes. Costs are exact. Only
trainings are invented:

    error = truth + effect of the seed, the same for all placements + noise

A placement's truth is a sum of normal draws: one for each site, one for each option value (the same
at all sites), one for each choice at a site, and one for the placement itself; `--parts` are their
standard deviations beside each other. All is scaled so that placements drawn as a random search
draws them have the wanted standard deviation. No attention has a sum of zero, so attention helps as
often as it hurts; a placement outside the choice space (SE) has one draw of that standard
deviation. The truths: "nothing", all placements equal; "small", a standard deviation of 0.16
points; "real", 0.44. Study n has the same draws under each, but for their size.

What is measured, for each truth:

    false_claims  the share of studies that say "better" (or "worse") of a pair where it is not so,
                  equal being neither, and the share that say it of any pair: in the lines of the
                  answer, in those of the recommended placement, in either, and anywhere in the
                  finalists' table
    told          numbers told beside the truth: bias (told - true, in points), rmse, coverage of
                  the 90 % intervals and their width
    choice        regret, the true error above that of the truly best tested placement, in points;
                  how often nothing is chosen, how often another placement than no attention, and
                  how often one that is truly worse: of the recommended placement, and of that which
                  the answer names for any overhead
    chances       by tenths of the told chance to be on the front: the mean told, and the share
                  truly on the front of the finalists' true errors and costs (an equal error at
                  more cost is not on it)
    expected      by tenths of the told chance of what the model expects to be better than a tested
                  placement: the mean told, and the share that truly is

True effects are as `Truth.effects` says. Ranges are of 90 %: Wilson's for shares of studies and for
chances, else those of 1,000 bootstraps over studies.
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bam_search.analysis.additive import PlacementEncoder
from bam_search.analysis.expected import Added, Expected
from bam_search.analysis.findings import Findings
from bam_search.analysis.pareto import nondominated
from bam_search.model.attach import resolve
from bam_search.score.cost_table import what_choices_add
from bam_search.score.device import choose
from bam_search.score.evaluate import Job, Result
from bam_search.search.finalists import train_ablations, train_finalists
from bam_search.search.loop import SearchContext, candidate_generator, random_baseline, search
from bam_search.search.study import Study, load_study
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import Record
from bam_search.tasks.classification.task import TOP1_ERROR
from bam_search.tasks.metric import Metric
from benchmarks import told
from benchmarks.invented import context_of
from benchmarks.known_truth import Parts, Truth, drawn
from benchmarks.results import deliver, say
from benchmarks.search import Memory, _done

TRUTHS = {"nothing": 0.0, "small": 0.16, "real": 0.44}
"""The standard deviation of placements' true errors, in points."""
LEVEL = 0.9
"""The probability of all ranges."""
DRAWN = 400
"""How many random placements a truth is scaled by."""
EITHER = "answers or recommended"


@dataclass(frozen=True)
class Setting:
    """What all studies of one truth share.

    `sd` is that of true errors, `seed_effect` and the noises are standard deviations too, all in
    points. `assignments` change the study, as KEY=VALUE.
    """

    sd: float
    parts: Parts = field(default_factory=Parts)
    seed_effect: float = 0.7
    final_noise: float = 0.41
    validation_noise: float = 0.9
    assignments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """What findings need beside the records."""

    metric: Metric
    objectives: tuple[str, ...]
    choice_space: ChoiceSpace
    recommend_by: tuple[str, ...]
    added: Added


@dataclass(frozen=True)
class Claim:
    """A comparison that is told `where`, and the true difference."""

    where: str
    verdict: str
    true: float

    def says(self, verdict: str) -> bool:
        """Whether it says so."""
        return self.verdict == verdict

    def is_false(self, verdict: str) -> bool:
        """Whether it says so of a pair where it is not so."""
        so = self.true < 0 if verdict == "better" else self.true > 0
        return self.says(verdict) and not so


@dataclass(frozen=True)
class Figure:
    """A number of some `kind` that is told, and the true one."""

    kind: str
    said: told.Said
    true: float


@dataclass(frozen=True)
class Pick:
    """What a `rule` picks.

    Attributes:
        regret: None if it picks nothing.
        attends: whether it picks another placement than no attention.
        harms: whether that is truly worse than no attention.
    """

    rule: str
    regret: float | None
    attends: bool
    harms: bool


@dataclass(frozen=True)
class Chance:
    """A told chance to be on the front, or to be better, and whether it truly is."""

    said: float
    true: bool


@dataclass(frozen=True)
class Outcome:
    """What one study said, beside the truth."""

    claims: tuple[Claim, ...]
    figures: tuple[Figure, ...]
    picks: tuple[Pick, ...]
    chances: tuple[Chance, ...]
    expected: tuple[Chance, ...]


def outcome(setting: Setting, number: int) -> Outcome:
    """What study `number` said."""
    truth, study, findings = simulate(setting, number)
    return Outcome(
        tuple(_claims(truth, findings)),
        tuple(_figures(truth, findings, _level(setting, number, findings))),
        tuple(_picks(truth, findings)),
        tuple(_chances(truth, study, findings)),
        tuple(Chance(one.chance, _beside(truth, one) < 0) for one in findings.expected),
    )


def simulate(setting: Setting, number: int) -> tuple[Truth, Study, Findings]:
    """Run study `number` to its end, with nothing trained."""
    study, context, encoder, some = _study(setting.assignments)
    study = replace(study, seed=number)
    truth = Truth.draw(encoder, some, setting.sd, setting.parts, number)
    store = Memory()

    def submit(job: Job) -> "Future[Result]":
        noise = setting.final_noise if job.final else setting.validation_noise
        together = setting.seed_effect * drawn(number, job.seed)
        alone = noise * drawn(number, job.seed, job.final, job.placement)
        return _done(truth.error(job.placement) + together + alone)

    def ignore(_record: Record) -> None: ...

    search(study, context, store, submit, ignore)  # type: ignore[arg-type]
    if study.random_baseline:
        random_baseline(study, context, store, submit, ignore)  # type: ignore[arg-type]
    train_finalists(study, context, store, submit, ignore)  # type: ignore[arg-type]
    train_ablations(study, context, store, submit, ignore)  # type: ignore[arg-type]
    space = context.choice_space
    added = what_choices_add(context.costs, space)
    about = Context(TOP1_ERROR, study.objectives, space, study.recommend.by, added)
    return truth, study, Findings.of(list(store.records().values()), about)


@functools.cache
def _study(
    assignments: tuple[str, ...],
) -> tuple[Study, SearchContext, PlacementEncoder, np.ndarray]:
    """The study, its context, and the (n, sites) placements that truths are scaled by."""
    study = load_study("placement", choose("cpu"), {}, list(assignments))
    context = context_of(study.space, study.references)
    pool = candidate_generator(study, context)._pool
    drawn_at_random = (resolve(pool.spread(i), context.sites) for i in range(DRAWN))
    vectors = [pool.encoder.vector(placement) for placement in drawn_at_random]
    some = np.array([vector for vector in vectors if vector is not None])
    return study, context, pool.encoder, some


def _claims(truth: Truth, findings: Findings) -> Iterable[Claim]:
    for where in (told.ANSWERS, told.RECOMMENDED, told.TABLE):
        for one in told.told_comparisons(findings, where):
            yield Claim(where, one.verdict, _difference(truth, one))


def _difference(truth: Truth, one: told.Comparison) -> float:
    return truth.error(one.record.placement) - truth.error(one.other.placement)


def _beside(truth: Truth, one: Expected) -> float:
    return truth.error(one.placement.text) - truth.error(one.beside.placement)


def _level(setting: Setting, number: int, findings: Findings) -> float:
    """The mean effect of the seeds of a study's final trainings: what is told is at this level."""
    seeds = {seed for record in findings.records for seed in record.test_seeds}
    return setting.seed_effect * float(np.mean([drawn(number, seed) for seed in seeds]))


def _figures(truth: Truth, findings: Findings, level: float) -> Iterable[Figure]:
    recommended = told.told_recommendation(findings)
    groups = {
        "recommended": [recommended] if recommended else [],
        "named by answers": told.told_answers(findings),
        "a finalist": [record for record, _ in told.told_chances(findings)],
    }
    bare = next(r for r in findings.tested_references if r.placement == "none")
    for who, records in groups.items():
        for record in records:
            said = told.told_value(findings, record)
            yield Figure(f"metric, {who}", said, truth.error(record.placement) + level)
            beside = told.told_difference(findings, record, bare)
            if beside:
                kind = f"difference to no attention, {who}"
                yield Figure(kind, beside.said, _difference(truth, beside))
    for one in told.told_comparisons(findings, told.TABLE):
        yield Figure("difference, any pair", one.said, _difference(truth, one))
    for each in findings.expected:
        said = told.Said(each.difference, each.low, each.high)
        yield Figure("expected by the model", said, _beside(truth, each))
    true = truth.effects()
    for name, said in told.told_effects(findings).items():
        kind = "effect of an option value" if "(" in name else "effect of a module at a site"
        yield Figure(kind, said, true[name])


def _picks(truth: Truth, findings: Findings) -> Iterable[Pick]:
    tested = [truth.error(record.placement) for record, _ in told.told_chances(findings)]
    named = told.told_answers(findings)
    picked = {
        "recommended": told.told_recommendation(findings),
        "named for any overhead": named[-1] if named else None,
    }
    for rule, record in picked.items():
        if record is None:
            yield Pick(rule, None, False, False)
            continue
        error = truth.error(record.placement)
        attends = record.placement != "none"
        yield Pick(rule, error - min(tested), attends, error > truth.error("none"))


def _chances(truth: Truth, study: Study, findings: Findings) -> Iterable[Chance]:
    chances = told.told_chances(findings)
    rows = [
        [truth.error(record.placement), *(record.objective(key) for key in study.costs)]
        for record, _ in chances
    ]
    for (_, said), on in zip(chances, nondominated(np.array(rows)), strict=True):
        yield Chance(said, bool(on))


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What the studies of one truth come to."""
    return {
        "studies": len(outcomes),
        "false_claims": _false_claims(outcomes),
        "told": _told(outcomes),
        "choice": _choice(outcomes),
        "chances": _by_tenths([chance for one in outcomes for chance in one.chances]),
        "expected": _by_tenths([chance for one in outcomes for chance in one.expected]),
    }


def _false_claims(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    lines = (told.ANSWERS, told.RECOMMENDED)
    groups = {**{where: (where,) for where in lines}, EITHER: lines, told.TABLE: (told.TABLE,)}
    found: dict[str, Any] = {}
    for name, places in groups.items():
        here = [[claim for claim in one.claims if claim.where in places] for one in outcomes]
        found[name] = {
            **{
                f"false {verdict}": share([any(c.is_false(verdict) for c in cs) for cs in here])
                for verdict in ("better", "worse")
            },
            **{
                f"any {verdict}": share([any(c.says(verdict) for c in cs) for cs in here])
                for verdict in ("better", "worse")
            },
        }
    return found


def _told(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    kinds = dict.fromkeys(figure.kind for one in outcomes for figure in one.figures)
    found = {}
    for kind in kinds:
        figures = [[f for f in one.figures if f.kind == kind] for one in outcomes]
        found[kind] = _accuracy(figures)
    return found


def _accuracy(figures: Sequence[Sequence[Figure]]) -> dict[str, Any]:
    """How far told numbers, those of each study together, are from the truth."""
    errors = [[figure.said.mean - figure.true for figure in of_study] for of_study in figures]
    flat = np.array(list(itertools.chain.from_iterable(errors)))
    hits, widths = [], []
    for of_study in figures:
        sure = [
            (f.said.low, f.true, f.said.high)
            for f in of_study
            if f.said.low is not None and f.said.high is not None
        ]
        hits.append([float(low <= true <= high) for low, true, high in sure])
        widths += [high - low for low, _, high in sure]
    return {
        "bias": average(errors),
        "rmse": float(np.sqrt(np.mean(flat**2))),
        "coverage_90": average(hits),
        "width": float(np.mean(widths)) if widths else None,
    }


def _choice(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    rules = dict.fromkeys(pick.rule for one in outcomes for pick in one.picks)
    found = {}
    for rule in rules:
        picks = [pick for one in outcomes for pick in one.picks if pick.rule == rule]
        found[rule] = {
            "regret": average([[p.regret] if p.regret is not None else [] for p in picks]),
            "nothing": share([pick.regret is None for pick in picks]),
            "not no attention": share([pick.attends for pick in picks]),
            "truly worse than no attention": share([pick.harms for pick in picks]),
        }
    return found


def _by_tenths(chances: Sequence[Chance]) -> list[dict[str, Any]]:
    """For each tenth of told chances that has some: how often these were true."""
    found = []
    for tenth in range(10):
        here = [chance for chance in chances if min(int(10 * chance.said), 9) == tenth]
        if here:
            said = float(np.mean([chance.said for chance in here]))
            found.append({"told": said, "true": share([chance.true for chance in here])})
    return found


def share(hits: Sequence[bool]) -> dict[str, float]:
    """The share of hits, with Wilson's range."""
    found = stats.binomtest(sum(hits), len(hits)).proportion_ci(LEVEL, method="wilson")
    low, high = float(found.low), float(found.high)
    return {"share": sum(hits) / len(hits), "low": low, "high": high, "n": len(hits)}


def average(by_study: Sequence[Sequence[float]]) -> dict[str, float] | None:
    """The mean over all values, with its range by a bootstrap over studies; None of no value."""
    sums = np.array([sum(values) for values in by_study])
    counts = np.array([len(values) for values in by_study])
    if not counts.sum():
        return None
    rows = np.random.default_rng(0).integers(len(sums), size=(1000, len(sums)))
    means = sums[rows].sum(1) / np.maximum(counts[rows].sum(1), 1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(sums.sum() / counts.sum())
    return {"mean": mean, "low": float(low), "high": float(high), "n": int(counts.sum())}


def run(setting: Setting, studies: int, workers: int) -> dict[str, Any]:
    """Simulate studies 0 to `studies` - 1, and sum them up."""
    one: Callable[[int], Outcome] = functools.partial(outcome, setting)
    if workers == 1:
        return summary([one(number) for number in range(studies)])
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come: their matrices are small
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return summary(list(pool.map(one, range(studies), chunksize=5)))


def main() -> None:
    """Simulate the studies of each truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200, help="of each truth")
    parser.add_argument("--truths", nargs="+", default=list(TRUTHS), choices=TRUTHS)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of the study, as for `run`"
    )
    parser.add_argument("--validation-noise", type=float, default=Setting.validation_noise)
    parser.add_argument("--final-noise", type=float, default=Setting.final_noise)
    parser.add_argument("--seed-effect", type=float, default=Setting.seed_effect)
    parser.add_argument(
        "--parts", type=float, nargs=4, default=list(asdict(Parts()).values()), metavar="SD"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for name in asked.truths:
        setting = Setting(
            TRUTHS[name],
            Parts(*asked.parts),
            asked.seed_effect,
            asked.final_noise,
            asked.validation_noise,
            tuple(asked.set),
        )
        begun = time.perf_counter()
        found[name] = {"setting": asdict(setting), **run(setting, asked.studies, asked.workers)}
        seconds = time.perf_counter() - begun
        say(f"{name}: {asked.studies} studies in {seconds:.0f} s")
    deliver(found, asked.out)


if __name__ == "__main__":
    main()
