"""The figure and the table for a paper: the page's numbers, at the sizes of a paper."""

import csv
import functools
import io
import itertools
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import studied
from conftest import make_record, run_command
from matplotlib.figure import Figure
from matplotlib.text import Text
from studied import BASE, RECORDS, context, found

from bam_search.analysis.findings import Findings
from bam_search.errors import UserError
from bam_search.report.publication.caption import bibtex, figure_caption
from bam_search.report.publication.figure import WIDTHS, draw, numbers, save
from bam_search.report.publication.table import FORMS

ABOUT = {
    "Recipe": "epochs 4, lr 0.1",
    "Split": "300 images train and 200 validate",
    "Versions": "bam_search 0.1.0, Python 3.11",
    "Date": "2026-11-27T12:00",
}
HOSTILE = r"=cmd|' /C calc'!A0 \input{x} 50 % & $x_1^2$ #7 {~} <b> ± – ü"
"""A name that would run in a spreadsheet, and break LaTeX and Markdown."""


@functools.cache
def whole() -> Findings:
    """The findings of the whole invented study."""
    return found(RECORDS)


@functools.cache
def hostile() -> Findings:
    """The same, with a reference of a hostile name."""
    return found([replace(BASE, name=HOSTILE), *RECORDS[1:]])


def texts(figure: Figure) -> list[Text]:
    """All texts of the figure, but for ticks beyond the ends of the axes, which are not drawn."""
    shown = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        shown += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            ticks = axis.get_major_ticks()
            shown += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
    return [text for text in shown if text.get_visible() and text.get_text()]


def table_of(form: str, findings: Findings, is_all: bool = False) -> str:
    return FORMS[form](context(about=ABOUT), findings, is_all)


def test_the_figure_has_the_numbers_of_the_page() -> None:
    findings = whole()
    overview = findings.overview
    assert overview is not None
    shown = numbers(findings)
    assert [panel.title for panel in shown.panels] == ["parameters, +%", "MACs (conv + fc), +%"]
    for cost, panel in zip(("params_overhead", "macs_conv_fc_overhead"), shown.panels, strict=True):
        points = [(point.x, point.y) for point in panel.points]
        assert points == [(getattr(s.record, cost), s.expected) for s in overview.standings]
        assert panel.front[0] == (0.0, shown.baseline)
    (recommended,) = [point for point in shown.panels[0].points if point.is_recommended]
    assert overview.recommended is not None
    beside = overview.standing(overview.recommended).beside
    assert beside is not None
    assert beside.difference.low is not None
    assert recommended.low == pytest.approx(shown.baseline + beside.difference.low)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_figure_is_legible_at_its_size(width: str) -> None:
    figure = draw(numbers(whole()), width)
    assert figure.get_figwidth() == WIDTHS[width][0]
    figure.draw_without_rendering()
    shown = texts(figure)
    assert {"no attention", "BAM in front"} <= {text.get_text() for text in shown}
    assert all(7 <= text.get_fontsize() <= 9 for text in shown)
    boxes = [text.get_window_extent() for text in shown]
    frame = figure.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 for box in boxes)
    for one, other in itertools.combinations(boxes, 2):
        shared = type(one).intersection(one, other)
        assert shared is None or shared.width * shared.height < 1


def test_labels_stay_beside_their_points_at_the_resolution_of_a_picture() -> None:
    figure = draw(numbers(whole()), "page")
    for dpi in (figure.dpi, 400):
        figure.set_dpi(dpi)
        for axes in figure.axes:
            assert axes.texts
            for text in axes.texts:
                assert axes.bbox.count_contains(text.get_window_extent().corners()) == 4


def test_many_names_get_a_key_in_place_of_labels() -> None:
    crowd = [
        make_record(
            i,
            80.0,
            0.01 * i,
            origin="reference",
            name=f"a long name, number {i}",
            placement="none" if i == 0 else f"layer{i}=bam",
            **studied.measured(80, 81, 82),
        )
        for i in range(12)
    ]
    figure = draw(numbers(found(crowd)), "column")
    (key,) = figure.legends
    assert len(key.get_texts()) == 12
    assert figure.get_figheight() > WIDTHS["column"][1]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_name_is_drawn_as_it_is(tmp_path: Path, width: str) -> None:
    figure = draw(numbers(hostile()), width)
    save(tmp_path / "front.png", figure, HOSTILE)
    shown = " ".join(text.get_text() for text in texts(figure)).replace("\n", " ")
    assert HOSTILE[:30] in shown
    assert not any(text.get_parse_math() for text in texts(figure))


def test_marks_differ_by_shape_and_not_by_colour_alone() -> None:
    named = [point for point in numbers(whole()).panels[0].points if point.name]
    looks = [(point.marker, point.is_recommended) for point in named]
    assert len(set(looks)) == len(named) >= 3


@pytest.mark.parametrize(
    ("suffix", "begins"), [(".pdf", b"%PDF"), (".svg", b"<?xml"), (".png", b"\x89PNG")]
)
def test_the_same_study_gives_the_same_file(tmp_path: Path, suffix: str, begins: bytes) -> None:
    shown = numbers(whole())
    for name in ("a", "b"):
        save(tmp_path / f"{name}{suffix}", draw(shown, "column"), "what – it shows")
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b"))
    assert first.startswith(begins)
    assert first == second
    assert b"/Type3" not in first  # publishers refuse such fonts


def test_the_caption_says_data_recipe_seeds_and_what_is_wrong() -> None:
    about = context(about=ABOUT, warning="These are generated images", state="Running, 3 of 9")
    caption = figure_caption(about, whole())
    assert caption.startswith("Running, 3 of 9. These are generated images. Test top-1 error (%)")
    for said in (
        "small, trained on CIFAR-100",
        "3 seeds",
        "95% credible",
        "no attention (dashed)",
        "Recipe: epochs 4, lr 0.1.",
        "Data: 300 images train",
    ):
        assert said in caption
    assert "None" not in caption
    assert caption.count("#2 is layer1=bam layer2=bam(r=8).") == 1


def test_a_long_placement_stands_by_its_tag_and_the_caption_says_it() -> None:
    placement = " ".join(f"layer{i}.0.bn2=bam(r=8,d=2)" for i in range(9))
    findings = found([BASE, replace(studied.WINNER, placement=placement)])
    for form in ("latex", "markdown"):
        text = table_of(form, findings)
        assert "#2 (recommended, least top-1 error)" in text.replace("\\", "")
        assert text.replace("\\", "").count(f"#2 is {placement}.") == 1


def test_a_row_of_csv_is_a_placement_in_plain_numbers() -> None:
    findings = whole()
    assert findings.overview is not None
    rows = {
        row["candidate"]: row
        for row in csv.DictReader(io.StringIO(table_of("csv", whole(), is_all=True)))
    }
    assert list(rows) == [one.record.tag for one in findings.overview.standings]
    winner, mean = rows["2"], findings.finals.means[2]
    assert (winner["role"], winner["n"]) == ("least top-1 error", "3")
    assert rows["A2001"]["role"] == "recommended"
    assert [float(winner[key]) for key in ("mean", "sd", "mean_low_90", "mean_high_90")] == [
        mean.mean,
        mean.sd,
        mean.low,
        mean.high,
    ]
    assert float(winner["macs_conv_fc_overhead_percent"]) == 3.0
    assert float(winner["training_seconds"]) == 1.0
    assert winner["verdict"] == "better"


def test_what_is_measured_beside_the_metric_has_a_column() -> None:
    title = "top-5 error, %"
    findings = found([replace(BASE, test_further={title: (40.0, 42.0)}), *RECORDS[1:]])
    head, _, first, second, *_ = table_of("markdown", findings).splitlines()
    assert head.startswith("| placement | test top-1 error, % | test top-5 error, % | n |")
    assert " | 41.00 ± 1.41 | " in first
    assert " | – | " in second
    row = next(csv.DictReader(io.StringIO(table_of("csv", findings, True))))
    assert float(row[f"mean {title}"]) == 41.0
    assert r"{test top-5\\error, \%}" in table_of("latex", findings)


def test_the_generalisation_gap_has_a_column_where_it_is_measured() -> None:
    n = len(BASE.test_metrics)
    trained = tuple(value - 20 - 2 * i for i, value in enumerate(BASE.test_metrics))
    findings = found([replace(BASE, train_metrics=trained), *RECORDS[1:]])
    head, _, first, second, *_ = table_of("markdown", findings).splitlines()
    gap = head.split(" | ").index("test minus training, points")
    assert head.split(" | ")[gap - 1] == "training top-1 error, %"
    assert first.split(" | ")[gap].startswith(f"{20 + (n - 1):.2f} ± ")
    assert second.split(" | ")[gap] == "–"
    row = next(csv.DictReader(io.StringIO(table_of("csv", findings, True))))
    assert float(row["mean_training"]) == pytest.approx(sum(trained) / n)
    assert float(row["mean_generalisation_gap"]) == pytest.approx(20 + n - 1)
    assert "test minus training" not in table_of("markdown", whole())


def test_what_is_published_is_on_the_page() -> None:
    """The same findings, and so the same numbers."""
    page = studied.html_of(RECORDS, "cdn")
    rows = [re.split(r" \| ", line) for line in table_of("markdown", whole()).splitlines()[2:6]]
    for row in rows:
        mean, _, spread = row[1].partition(" ± ")
        for number in (mean, spread, row[3].split(" ")[0].replace("–", mean)):
            assert number in page


def test_the_main_rows_are_the_references_and_the_recommended_one() -> None:
    lines = table_of("markdown", whole()).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| no attention",
        "| BAM in front",
        "| layer1=bam (recommended)",
        "| layer1=bam layer2=bam(r=8) (least top-1 error)",
    ]
    assert lines[6] == ""
    assert "72.20 ± 0.26 | 3 | -9." in lines[5]
    assert table_of("markdown", whole(), is_all=True).count("\n") > len(lines)


def test_differences_are_to_the_candidate_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    studied.written(tmp_path, RECORDS)

    def rows(*words: str) -> dict[str, dict[str, str]]:
        assert run_command(monkeypatch, "table", tmp_path, "--csv", *words) == 0
        return {
            row["candidate"]: row for row in csv.DictReader(capsys.readouterr().out.split("\n"))
        }

    to_nothing, to_paper = rows(), rows("--beside", studied.PAPER.name)
    tag = studied.PAPER.tag
    assert to_paper[tag]["difference"] == ""
    assert {row["beside"] for row in to_paper.values()} == {"", studied.PAPER.name}
    there, back = to_nothing[tag], to_paper[BASE.tag]
    for key, other in (("difference", "difference"), ("difference_low_95", "difference_high_95")):
        assert float(back[key]) == pytest.approx(-float(there[other]), abs=1e-9)

    untested = next(record for record in RECORDS if not record.is_tested)
    assert run_command(monkeypatch, "table", tmp_path, "--beside", untested.tag) == 2
    assert "was not tested" in capsys.readouterr().err


def test_no_cell_of_csv_is_a_formula_and_no_name_breaks_a_table() -> None:
    findings = hostile()
    row = next(csv.DictReader(io.StringIO(table_of("csv", findings, True))))
    assert row["name"] == f"'{HOSTILE}"
    cells = re.split(r"(?<!\\)\|", table_of("markdown", findings).splitlines()[2])
    assert len(cells) == len(table_of("markdown", whole()).splitlines()[0].split("|"))
    body = table_of("latex", findings).split(r"\midrule")[1].split(r"\bottomrule")[0]
    counts = {len(re.findall(r"(?<!\\)&", line)) for line in body.strip().splitlines()}
    assert counts == {7}
    assert not re.findall(r"(?<!\\)[%#_]|[~^<>±–]|\\input", body)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("is_all", [False, True])
def test_latex_takes_the_table(tmp_path: Path, is_all: bool) -> None:
    findings = hostile()
    text = table_of("latex", findings, is_all)
    (tmp_path / "t.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs,graphicx}\n"
        f"\\begin{{document}}\n{text}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout
    assert "Overfull" not in done.stdout


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_takes_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = (BASE, studied.PAPER, studied.WINNER)
    records = [replace(record, rung_epochs=(), rung_metrics=()) for record in tested]
    page = studied.written(tmp_path, records)
    words = ("--out", tmp_path / "front.pdf", "--width", "page", "--latex")
    assert run_command(monkeypatch, "figure", page, *words) == 0
    text = capsys.readouterr().out
    (tmp_path / "t.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage{graphicx}\n"
        f"\\begin{{document}}\n{text}\n\\end{{document}}\n"
    )
    compile_ = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(compile_, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "front.pdf" in done.stdout
    assert "Overfull" not in done.stdout


def test_what_is_cited_is_the_paper_and_this_version() -> None:
    entries = bibtex(context(about=ABOUT))
    assert re.findall(r"@\w+\{(\w+)", entries) == ["park2018bam", "bam_search"]
    assert "Version 0.1.0" in entries
    assert entries.count("{") == entries.count("}")


def test_of_a_study_without_tests_there_is_nothing_to_publish() -> None:
    findings = found([make_record(0, 80.0, 0.0)])
    with pytest.raises(UserError, match="nothing has been tested yet"):
        numbers(findings)
    for form in ("latex", "markdown", "csv"):
        with pytest.raises(UserError, match="nothing has been tested yet"):
            FORMS[form](context(), findings, False)


def test_a_folder_or_a_page_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = (BASE, studied.PAPER, studied.WINNER)
    records = [replace(record, rung_epochs=(), rung_metrics=()) for record in tested]
    page = studied.written(tmp_path, records)
    for path in (page, tmp_path):
        assert run_command(monkeypatch, "figure", path, "--out", tmp_path / "front.svg") == 0
        said = capsys.readouterr()
        assert said.out.startswith("Test top-1 error (%)")
        assert said.err == f"figure: {tmp_path / 'front.svg'}\n"
        assert run_command(monkeypatch, "table", path, "--latex") == 0
        printed = capsys.readouterr().out
        assert r"\toprule" in printed
        assert r"\label{tab:a-study}" in printed
        out = tmp_path / "my_front.png"
        words = ("--latex", "--beside", studied.PAPER.name)
        assert run_command(monkeypatch, "figure", path, "--out", out, *words) == 0
        printed = capsys.readouterr().out
        assert r"\label{fig:my-front}" in printed
        assert f"difference to {studied.PAPER.name}" in printed
    for words, said in (
        (("figure", page, "--out", "front.gif"), "cannot be written as 'front.gif'"),
        (("figure", page, "--out", "front.svg", "--latex"), "LaTeX shows no .svg"),
        (("figure", page, "--out", tmp_path / "no" / "x.pdf"), "cannot be written"),
        (("table", tmp_path / "nowhere"), "cannot be read"),
        (("table", page, "--bibtex", "--rows", "main"), "--rows goes with a table"),
        (("table", page, "--bibtex", "--beside", "0"), "--beside goes with a table"),
        (("table", page, "--beside", "nobody"), "has no candidate 'nobody'"),
    ):
        assert run_command(monkeypatch, *words) == 2
        assert said in capsys.readouterr().err
