"""What the page carries as JSON, and how it is read back.

It is enough to compute every number of the page again, and to draw its placements.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bam_search.analysis.additive import PlacementEncoder
from bam_search.analysis.expected import Added, Expected
from bam_search.analysis.final_metrics import ComparedTo
from bam_search.analysis.findings import Finalist, Findings
from bam_search.analysis.recommendation import Answer, Recommendation
from bam_search.errors import UserError
from bam_search.report.class_table import by_class_values
from bam_search.report.commands import Origin, commands
from bam_search.report.figures import candidates
from bam_search.report.paper_table import Paper
from bam_search.report.render import LIBRARIES
from bam_search.report.tables import front_text
from bam_search.report.where import heat, modules_of
from bam_search.space.placement import Choice
from bam_search.space.search_space import ChoiceSpace
from bam_search.space.sites import Site, Sites
from bam_search.study.published import PublishedFigure
from bam_search.study.record import Record, costs_of
from bam_search.tasks.metric import Metric

SCHEMA = 1
"""The version of what a page carries; a page of another one cannot be read.

It changes with the fields of ReportContext and Record that have no default.
"""

PLOTLY = version("plotly")
"""The version of what draws figures: another one draws others."""


@dataclass(frozen=True)
class ReportContext:
    """What a report is about, beside its records.

    title: the study's name.
    metric, sample: what it measures, and what one sample is called.
    objectives: the keys of OBJECTIVES that its fronts are of.
    warning: text on top of the page, if not empty (the data are not CIFAR-100, for example).
    state: text before that, where the study has not finished: "running, 12 of 40 candidates".
    about: how the study was run, as text by title.
    choice_space: what the search could choose among.
    added: what each choice adds; empty on pages that were made before this was known.
    recommend_by: the overheads that a recommended placement is cheap in, the first one first.
    paper: what the paper says about the study.
    sites: the backbone's sites, to draw placements.
    origin: where its candidates come from, for commands; None if that is not known.
    base: the backbone's counts, which the overheads are above.
    classes: the names of the data's classes, in the order of their numbers, if they have names.
    """

    title: str
    metric: Metric
    sample: str
    objectives: tuple[str, ...]
    warning: str
    about: Mapping[str, str]
    choice_space: ChoiceSpace
    recommend_by: tuple[str, ...]
    paper: Paper = field(default_factory=Paper)
    sites: Sites = field(default_factory=lambda: Sites(()))
    origin: Origin | None = None
    base: Mapping[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    state: str = ""
    added: Added = field(default_factory=dict)

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives beside the metric."""
        return costs_of(self.objectives)


def payload(context: ReportContext, findings: Findings) -> dict[str, Any]:
    """All that the page carries, as values for JSON.

    These are the context, the records, what was derived from them (`found`), and what drawings
    need: sites, axes, colours of effects.
    """
    records = findings.records
    encoder = PlacementEncoder.of(context.choice_space)
    return {
        "schema": SCHEMA,
        "plotly": PLOTLY,
        "title": context.title,
        "state": context.state,
        "metric": asdict(context.metric),
        "sample": context.sample,
        "objectives": context.objectives,
        "warning": context.warning,
        "about": dict(context.about),
        "choice_space": _choice_space_values(context.choice_space),
        "added": dict(context.added),
        "recommend_by": context.recommend_by,
        "paper": asdict(context.paper),
        "origin": context.origin and asdict(context.origin),
        "commands": context.origin and commands(context.origin),
        "base": dict(context.base),
        "classes": context.classes,
        "sites": [asdict(site) for site in _drawn_sites(context, records)],
        "blocks": context.sites.blocks,
        "axes": _axes(encoder),
        "modules": modules_of(context.choice_space.sites, _placed_modules(records)),
        "heat": heat(context.metric, findings.effects),
        "candidates": asdict(candidates(findings)),
        "records": [_record_values(record, encoder) for record in records],
        "found": found(findings),
    }


def _choice_space_values(space: ChoiceSpace) -> dict[str, Any]:
    illegal = sorted(space.illegal, key=lambda entry: (entry[0], entry[1].text))
    return {
        "sites": space.sites,
        "defaults": space.defaults,
        "illegal": [[site, choice.module, dict(choice.options)] for site, choice in illegal],
        "left_out": space.left_out,
    }


def _drawn_sites(context: ReportContext, records: Sequence[Record]) -> list[Site]:
    """The sites that a drawing needs: those of any placement or choice, and the blocks."""
    names = {*context.choice_space.sites, *context.sites.blocks}
    for record in records:
        placement = record.readable_placement
        if placement is not None:
            names.update(site for site, _ in placement.choices)
    return [site for site in context.sites if site.name in names]


def _placed_modules(records: Sequence[Record]) -> list[str]:
    """The modules of all placements."""
    placements = (record.readable_placement for record in records)
    return [choice.module for one in placements if one for _, choice in one.choices]


def _axes(encoder: PlacementEncoder) -> list[dict[str, Any]]:
    """The axes of the figure of parallel coordinates: each site with its choices."""
    axes = []
    for site, choices in zip(encoder.sites, encoder.choices, strict=True):
        texts = [choice.text for choice in choices]
        axes.append({"site": site, "choices": ["none", *texts]})
    return axes


def _record_values(record: Record, encoder: PlacementEncoder) -> dict[str, Any]:
    """A record with its tag, its choices by site, and its place on the axes.

    Both are None of a record whose text is no placement; the place also if it is not in the space.
    """
    placement = record.readable_placement
    vector = None if placement is None else encoder.vector(placement)
    return {
        "tag": record.tag,
        "at": None if vector is None else vector.tolist(),
        "choices": None if placement is None else placement.by_site,
        **record.to_dict(),
    }


def found(findings: Findings) -> dict[str, Any]:
    """Every number of the page that is not a record's own, as values for JSON.

    These are fronts, intervals, differences, effects, and what is recommended.
    """
    effects, stops, believable = findings.effects, findings.stopping, findings.believability
    recommended = findings.recommendation
    return {
        "front": [record.tag for record in findings.front],
        "believability": believable and asdict(believable),
        "recommended": recommended and _recommendation_values(recommended),
        "by_class": findings.by_class and by_class_values(findings.by_class),
        "answers": [_answer_values(answer) for answer in findings.answers],
        "finalists": [_finalist_values(findings, finalist) for finalist in findings.finalists],
        "differences": _difference_values(findings),
        "ablations": [_compared_values(ablation) for ablation in findings.ablations],
        "helps": effects and asdict(effects),
        "expected": [_expected_values(one) for one in findings.expected],
        "stopping": stops and asdict(stops),
        "latencies": [asdict(one) for one in findings.latencies],
        "foresight": findings.foresight and asdict(findings.foresight),
    }


def _expected_values(one: Expected) -> dict[str, Any]:
    return {
        **asdict(one),
        "beside": one.beside.tag,
        "placement": one.placement.text,
        "record": one.record and one.record.tag,
    }


def _recommendation_values(found: Recommendation) -> dict[str, Any]:
    return {
        "tag": found.record.tag,
        "expected": found.expected,
        "baseline": found.baseline and _compared_values(found.baseline),
        "promising": found.promising and _compared_values(found.promising),
    }


def _answer_values(answer: Answer) -> list[Any]:
    return [answer.axis, str(answer.budget), _recommendation_values(answer.recommendation)]


def _finalist_values(findings: Findings, finalist: Finalist) -> dict[str, Any]:
    return {
        "tag": finalist.record.tag,
        "test": asdict(finalist.test),
        "expected": findings.finals.expected(finalist.record),
        "on_front": finalist.p_on_front,
        "on_front_text": front_text(finalist),
    }


def _difference_values(findings: Findings) -> list[list[Any]]:
    """Each finalist beside each reference."""
    values = []
    for finalist in findings.finalists:
        compared = findings.compared_to_references(finalist.record)
        values += [_compared_values(one) for one in compared]
    return values


def _compared_values(compared: ComparedTo) -> list[Any]:
    return [
        compared.record.tag,
        compared.other.tag,
        asdict(compared.difference),
        compared.smallest,
        compared.verdict,
    ]


DATA = re.compile('<script type="application/json" id="study">(.*?)</script>', re.DOTALL)
"""Where a page carries its payload; the template report.html writes it."""


def read(path: Path) -> tuple[ReportContext, list[Record], dict[str, Any]]:
    """The context, the records and all values that a page carries.

    Raises UserError if it is not a page of this version.
    """
    try:
        text = path.read_text(encoding="utf-8")
        match = DATA.search(text)
        values = json.loads(match.group(1) if match else "")
        _check_schema(path, values.get("schema", 0))
        if values["plotlyjs"] not in LIBRARIES:
            raise ValueError("a page has plotly.js in one of these ways")
        return _context(values), _records(values["records"]), values
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}",
            "name a study's folder or page",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is not the page of a report", "name a study's folder or page"
        ) from None


RECORDS = TypeAdapter(list[Record])


def _records(rows: list[dict[str, Any]]) -> list[Record]:
    """The records of these rows. Raises ValueError if a value is not what a record has."""
    RECORDS.validate_json(json.dumps(rows), strict=True)
    records = [Record.from_dict(row) for row in rows]
    for record in records:
        tests, rungs = len(record.test_metrics), len(record.rung_metrics)
        if (tests, rungs) != (len(record.test_seeds), len(record.rung_epochs)):
            raise ValueError("there is a seed for each test, and a length for each rung")
        if len(record.train_metrics) not in (0, tests):
            raise ValueError("each final training measures its fit, or none does")
    return records


def _check_schema(path: Path, schema: Any) -> None:
    """Raise UserError if a page's records are of another version than SCHEMA."""
    if schema != SCHEMA:
        raise UserError(
            f"{path} was made by another version of bam_search: its records have the schema "
            f"{schema!r}, and this version reads {SCHEMA}",
            "where its study's folder is at hand, `report FOLDER` writes it anew",
        )


def _context(values: Mapping[str, Any]) -> ReportContext:
    """The inverse of `payload`, of the values that are the context's."""
    sites = tuple(Site(**_with_tuples(site)) for site in values["sites"])
    return ReportContext(
        title=values["title"],
        metric=Metric(**values["metric"]),
        sample=values["sample"],
        objectives=tuple(values["objectives"]),
        warning=values["warning"],
        about=values["about"],
        choice_space=_choice_space(values["choice_space"]),
        recommend_by=tuple(values["recommend_by"]),
        paper=_paper(values["paper"]),
        sites=Sites(sites, blocks=tuple(values["blocks"])),
        origin=Origin(**_with_tuples(values["origin"])) if values["origin"] else None,
        base=values["base"],
        classes=tuple(values["classes"]),
        state=values["state"],
        added=_added(values.get("added", {})),
    )


def _added(values: Mapping[str, Any]) -> Added:
    return {
        site: tuple(None if one is None else (int(one[0]), int(one[1])) for one in choices)
        for site, choices in values.items()
    }


def _choice_space(values: Mapping[str, Any]) -> ChoiceSpace:
    choices = {
        site: {module: _with_tuples(options) for module, options in modules.items()}
        for site, modules in values["sites"].items()
    }
    illegal = frozenset(
        (site, Choice.of(module, options)) for site, module, options in values["illegal"]
    )
    return ChoiceSpace(choices, values["defaults"], illegal, tuple(values["left_out"]))


def _paper(values: Mapping[str, Any]) -> Paper:
    entries = tuple(PublishedFigure(**_with_tuples(entry)) for entry in values["entries"])
    return Paper(**{**values, "entries": entries})


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with tuples again where JSON has made lists of them."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
