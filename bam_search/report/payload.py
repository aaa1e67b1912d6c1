"""What the page carries as JSON: enough to recompute every number on it, and to draw its
placements. Read back by `read`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bam_search.errors import UserError
from bam_search.report.findings import (
    ablations,
    compare_to,
    finalists,
    progress,
    search_vs_random,
    site_effects,
    stopping,
)
from bam_search.report.paper_table import Paper
from bam_search.report.tables import answers
from bam_search.search.additive import PlacementEncoder
from bam_search.search.pareto import pareto_front
from bam_search.search.published import PublishedFigure
from bam_search.search.record import REFERENCE, Record, costs_of, main_records
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.space.sites import Site, Sites


@dataclass(frozen=True)
class ReportContext:
    """What a report is about, beside its records.

    `warning` goes on top if it is not empty (the data are not CIFAR-100), `about` says how the
    study was run, `choice_space` what it could choose among; the first `startup` searched
    candidates were random. `sites` are the backbone's, to draw placements; `commands` what a reader
    can do with a candidate, with {tag} and {placement} in them; `base` has the backbone's counts,
    which overheads are above. `paper` is what the paper says about it.
    """

    title: str
    objectives: tuple[str, ...]
    warning: str
    about: Mapping[str, str]
    choice_space: ChoiceSpace
    startup: int
    paper: Paper = field(default_factory=Paper)
    sites: Sites = field(default_factory=lambda: Sites(()))
    commands: tuple[str, ...] = ()
    base: Mapping[str, int] = field(default_factory=dict)

    @property
    def costs(self) -> tuple[str, ...]:
        """The objectives beside the error."""
        return costs_of(self.objectives)


def payload(context: ReportContext, records: Sequence[Record]) -> dict[str, Any]:
    """The subject, the records, what was derived from them, and what drawings need: sites, axes,
    colours of effects.
    """
    encoder, derived = PlacementEncoder.of(context.choice_space), found(context, records)
    placements = {record.tag: _readable(record.placement) for record in records}
    vectors = {
        tag: None if placement is None else encoder.vector(placement)
        for tag, placement in placements.items()
    }
    used = {
        site for placement in placements.values() if placement for site, _ in placement.choices
    } | set(context.choice_space.sites)
    return {
        "title": context.title,
        "objectives": context.objectives,
        "warning": context.warning,
        "about": dict(context.about),
        "choice_space": {
            "sites": context.choice_space.sites,
            "defaults": context.choice_space.defaults,
            "illegal": sorted([site, choice.text] for site, choice in context.choice_space.illegal),
            "left_out": context.choice_space.left_out,
        },
        "startup": context.startup,
        "paper": asdict(context.paper),
        "commands": context.commands,
        "base": dict(context.base),
        "sites": [
            asdict(site)
            for site in context.sites
            if site.name in used or site.name in context.sites.blocks
        ],
        "blocks": context.sites.blocks,
        "axes": [
            {"site": site, "choices": ["none", *(c.text for c in encoder.choices[i])]}
            for i, site in enumerate(encoder.sites)
        ],
        "heat": heat(derived["helps"]["effects"]) if derived["helps"] else {},
        "records": [
            {
                "tag": record.tag,
                "at": None if (at := vectors[record.tag]) is None else at.tolist(),
                **record.to_dict(),
            }
            for record in records
        ],
        "found": derived,
    }


def found(context: ReportContext, records: Sequence[Record]) -> dict[str, Any]:
    """Every number of the page that is not a record's own: fronts, intervals, differences, effects,
    what the search was worth.
    """
    tested = finalists(records, context.costs)
    helped, stops, beside = (
        site_effects(records, context.choice_space),
        stopping(records, context.objectives),
        search_vs_random(records, context.objectives, context.startup),
    )
    return {
        "front": [record.tag for record in pareto_front(main_records(records), context.objectives)],
        "answers": [
            [
                a.axis,
                str(a.budget),
                a.record.tag,
                a.beside and [a.beside.other.tag, asdict(a.beside.difference)],
            ]
            for a in answers(records)
        ],
        "finalists": [
            {
                "tag": f.record.tag,
                "test": asdict(f.test),
                "chance": f.p_on_front,
                "promised": f.validation_gain,
                "kept": f.test_gain,
            }
            for f in tested
        ],
        "differences": [
            [a.record.tag, a.other.tag, asdict(a.difference)]
            for f in tested
            for a in compare_to(records, f.record, (REFERENCE,))
        ],
        "ablations": [
            [a.record.tag, a.other.tag, asdict(a.difference)] for a in ablations(records)
        ],
        "helps": helped and asdict(helped),
        "stopping": stops and asdict(stops),
        "arms": beside and asdict(beside),
        "progress": {
            name: [list(point) for point in line]
            for name, line in progress(records, context.objectives, context.startup).items()
        },
    }


def heat(effects: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A colour for each site: blue where attention helps, orange where it hurts, fainter the
    smaller the effect.
    """
    means = {
        effect["name"].rpartition("=")[0]: effect["mean"]
        for effect in effects
        if "(" not in effect["name"]
    }
    most = max(map(abs, means.values()), default=0.0) or 1.0
    shades = {site: (mean, round(abs(mean) / most, 3)) for site, mean in means.items()}
    return {
        site: f"rgba({'0,114,178' if mean < 0 else '213,94,0'},{shade})"
        for site, (mean, shade) in shades.items()
    }


def as_script(values: Mapping[str, Any]) -> str:
    """JSON that can stand in a script element: no text of it can end the element."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="study">{text.replace("<", chr(92) + "u003c")}</script>'


def read(path: Path) -> tuple[ReportContext, list[Record], dict[str, Any]]:
    """The subject, the records and the derived numbers of a page.

    Raises UserError if it is not a page of this version.
    """
    try:
        text = path.read_text(encoding="utf-8")
        match = re.search(
            r'<script type="application/json" id="study">(.*?)</script>', text, re.DOTALL
        )
        values = json.loads(match.group(1) if match else "")
        return (
            _subject(values),
            [Record.from_dict(row) for row in values["records"]],
            values["found"],
        )
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}", "name the index.html of a report"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path} is not the page of a report of this version", "name the index.html of a report"
        ) from None


def _subject(values: Mapping[str, Any]) -> ReportContext:
    menus = {
        site: {
            module: {option: tuple(found) for option, found in options.items()}
            for module, options in modules.items()
        }
        for site, modules in values["choice_space"]["sites"].items()
    }
    return ReportContext(
        title=values["title"],
        objectives=tuple(values["objectives"]),
        warning=values["warning"],
        about=values["about"],
        choice_space=ChoiceSpace(
            menus,
            values["choice_space"]["defaults"],
            _illegal(values["choice_space"]["illegal"]),
            tuple(values["choice_space"]["left_out"]),
        ),
        startup=values["startup"],
        paper=Paper(
            **{
                **values["paper"],
                "entries": tuple(
                    PublishedFigure(**_tuples(entry)) for entry in values["paper"]["entries"]
                ),
            }
        ),
        sites=Sites(
            tuple(Site(**_tuples(site)) for site in values["sites"]), blocks=tuple(values["blocks"])
        ),
        commands=tuple(values["commands"]),
        base=values["base"],
    )


def _illegal(pairs: Sequence[Sequence[str]]) -> frozenset[tuple[str, Choice]]:
    return frozenset(
        (site, Placement.parse(f"{site}={text}").choices[0][1]) for site, text in pairs
    )


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }


def _readable(text: str) -> Placement | None:
    try:
        return Placement.parse(text)
    except UserError:  # of a record that could not be trained because its placement is none
        return None
