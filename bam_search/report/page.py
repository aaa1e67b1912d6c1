"""The report: one HTML file that opens offline. All text from the study is escaped; plotly.js is in the file once."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from bam_search.files import write
from bam_search.report.figures import draw
from bam_search.report.tables import Answer, answers, error_text, front_csv, records_csv, shown, verdict
from bam_search.search.front import front
from bam_search.search.record import REFERENCE, Record

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.warning { background: #fff3cd; border-left: 6px solid #d55e00; padding: .6rem 1rem; font-weight: 600; }
.note { color: #555; font-size: .9rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; } th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #888; } td { border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""


def write_report(
    folder: Path, title: str, objectives: Sequence[str], warning: str, about: Mapping[str, str], records: Sequence[Record]
) -> Path:
    """Write index.html, records.csv and front.csv into `folder`, and return the page's path.

    `warning` goes on top if it is not empty (the data are not CIFAR-100), `about` says how the study was run.
    """
    write(folder / "records.csv", records_csv(records))
    write(folder / "front.csv", front_csv(records, objectives))
    write(folder / "index.html", page(title, objectives, warning, about, records))
    return folder / "index.html"


def page(title: str, objectives: Sequence[str], warning: str, about: Mapping[str, str], records: Sequence[Record]) -> str:
    """The whole page as HTML."""
    figure = draw(records, objectives).to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False, "responsive": True})
    banner = f'<p class="warning">{html.escape(warning)}</p>' if warning else ""
    references = [record for record in records if record.origin == REFERENCE]
    sections = [
        ("The answer", _answer(records)),
        ("Accuracy against overhead", figure + _paragraph(READING)),
        ("The front", _table(shown(front(records, objectives)))),
        ("The references", _table(shown(references))),
        ("All candidates", _table(shown(records)) + _failures(records)),
        ("How it was run", _definitions(about)),
    ]
    body = "\n".join(f"<section><h2>{html.escape(name)}</h2>\n{content}</section>" for name, content in sections)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body><h1>{html.escape(title)}</h1>{_subtitle(about)}{banner}
{body}
</body></html>
"""


READING = (
    "Each point is one candidate, trained once and scored on validation images that were held out of its training; bars are one binomial "
    "standard error of those images, and the spread between training seeds comes on top. A member of the front is beaten by no candidate "
    "in error, parameters and MACs together; the dotted line is the front of its panel alone. The crosses (click the legend) are test "
    "errors: the references and the front, trained a second time with a fresh seed on all training images, tested once after the search. "
    "MACs are multiply-adds for one image. 'conv + fc' is the convention that papers publish; 'all' adds batch normalisation, pooling "
    "and elementwise operators at one operation an element. An option that a placement does not write has its default: bam is "
    "bam(r=16,d=4), se is se(r=16)."
)


def answer_line(answer: Answer) -> str:
    """'at most +2 % parameters: 81.2 ± 1.0 % validation error, 81.9 % test error, with layer1=bam'."""
    record = answer.record
    test = "" if record.test_error is None else f", {record.test_error:.2f} % test error"
    name = f" ({record.name})" if record.name else ""
    return f"{answer.question}: {error_text(record)} % validation error{test}, with {record.placement}{name}"


def verdict_line(records: Sequence[Record]) -> str:
    """One sentence that sets the search's best beside the best reference; empty if one of them was not tested."""
    found = verdict(records)
    if found is None:
        return ""
    ours, reference = found.searched, found.reference
    return (
        f"The placements of least validation error, on the test set: of the search {ours.placement}, {ours.test_error:.2f} %; of the "
        f"references {reference.name}, {reference.test_error:.2f} %. The search's is {found.word} ({found.difference:+.2f} points; "
        f"±{found.margin:.2f} is the noise of the test images alone, and with one seed each the spread between seeds comes on top)."
    )


def _subtitle(about: Mapping[str, str]) -> str:
    parts = [about[key] for key in ("Question", "Backbone", "Data", "Variant") if key in about]
    return "".join(_paragraph(part) for part in parts[:1]) + _paragraph(" · ".join(parts[1:]))


def _answer(records: Sequence[Record]) -> str:
    lines = "".join(f"<li>{html.escape(answer_line(answer))}</li>" for answer in answers(records))
    return _paragraph(verdict_line(records), "") + "<p>Least validation error for each overhead budget:</p>" + f"<ul>{lines}</ul>"


def _table(frame: pd.DataFrame) -> str:
    return f'<div class="scroll">{frame.to_html(index=False, border=0)}</div>'


def _failures(records: Sequence[Record]) -> str:
    texts = [(record, text) for record in records for text in (record.failure, record.test_failure) if text]
    return "".join(f"<h3>Candidate {record.number} failed</h3><pre>{html.escape(text)}</pre>" for record, text in texts)


def _definitions(about: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in about.items())
    return f'<div class="scroll"><table>{rows}</table></div>'


def _paragraph(text: str, kind: str = "note") -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>' if text else ""
