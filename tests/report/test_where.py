"""Where attention helps: what cannot be told is grey, and what is not known is not drawn."""

import re
from dataclasses import replace

import pytest
from studied import RECORDS, found, html_of

from bam_search.analysis.effects import Effect, SiteEffects
from bam_search.analysis.findings import Findings
from bam_search.report.where import heat, modules_of, where
from bam_search.tasks.classification.task import TOP1_ERROR

EFFECTS = (
    Effect("layer1=bam", -2.0, -2.5, -1.5, 3),
    Effect("layer2=bam", 0.5, 0.1, 0.9, 3),
    Effect("layer3=bam", -0.6, -1.3, 0.1, 3),
    Effect("layer1=mygate", -0.8, -1.2, -0.4, 3),
    Effect("bam(r=8)", -0.2, -0.4, 0.1, 3),
)
KNOWN = SiteEffects(EFFECTS, 10, 30, error=0.5, error_of_mean=1.5)


def with_effects(effects: SiteEffects) -> Findings:
    return replace(found(RECORDS), effects=effects)


def test_each_effect_is_a_plot_that_is_grey_where_it_cannot_be_told() -> None:
    section = where(with_effects(KNOWN))
    assert section is not None
    kinds = {row.name: row.forest.kind for row in section.rows}
    assert kinds == {
        "layer1=bam": "better",
        "layer2=bam": "worse",
        "layer3=bam": "unclear",
        "layer1=mygate": "better",
        "bam(r=8)": "unclear",
    }
    first = section.rows[0]
    assert first.forest.low is not None
    assert first.forest.low < first.forest.mean < first.forest.zero
    assert "0" in [text for _, text in section.ticks]


def test_the_colours_have_numbers_and_every_module_a_drawing() -> None:
    colours = heat(TOP1_ERROR, KNOWN)
    assert {module: list(sites) for module, sites in colours["modules"].items()} == {
        "bam": ["layer1", "layer2", "layer3"],
        "mygate": ["layer1"],
    }
    assert colours["modules"]["bam"]["layer1"] == ("helps3", "layer1=bam: -2.00 points")
    assert colours["modules"]["mygate"]["layer1"][0] == "helps2"
    assert colours["key"][0] == ("helps3", "helps, 1.33 to 2.00 points")
    assert ("untold", "cannot be told from noise") in colours["key"]
    assert modules_of({"layer1": {"bam": {}}}, ["mygate", "bam"]) == ["bam", "mygate"]


def test_a_model_that_predicts_no_better_than_the_mean_is_not_drawn() -> None:
    silent = replace(KNOWN, error=1.6)
    section = where(with_effects(silent))
    assert section is not None
    assert section.rows == ()
    assert "no better than their mean does: it misses them by 1.60 points" in section.silent
    assert heat(TOP1_ERROR, silent) == {}


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (-2.0, "Both can be told from noise at 1 of 2 sites, and agree."),
        (2.0, "They disagree at layer1: it helps in layer1=bam layer2=bam(r=8), and hurts by"),
        (0.1, "At no site can both be told from noise"),
    ],
)
def test_ablations_and_effects_agree_or_the_page_says_why(mean: float, said: str) -> None:
    effect = Effect("layer1=bam", mean, mean - 0.5, mean + 0.5, 3)
    findings = with_effects(KNOWN)
    first, second = findings.checks
    unsure = replace(second, effect=None)
    section = where(replace(findings, checks=(replace(first, effect=effect), unsure)))
    assert section is not None
    assert section.agreement[0].startswith(said)


def test_nothing_reads_none() -> None:
    html = html_of(RECORDS, "none", about={"Question": "where?"})
    text = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    assert "None" not in re.sub(r"<[^>]*>", " ", text)
