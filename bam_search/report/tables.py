"""Tables from records: the CSV files, and what the page and the closing lines say."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from bam_search.analysis.final_metrics import MIN_SEEDS, ComparedTo
from bam_search.analysis.findings import Finalist, Findings
from bam_search.analysis.recommendation import AXES, TIMES
from bam_search.analysis.statistics import Mean, mean
from bam_search.errors import UserError, nearest
from bam_search.study.record import LATENCIES, OBJECTIVES, RECORDS_FILE, Record
from bam_search.tasks.metric import Metric

COLUMNS = [field.name for field in fields(Record)]
"""The columns of records.csv: the fields of a record."""
TEXT_FIELDS = tuple(field.name for field in fields(Record) if field.type in (str, "str"))
"""The fields of a record that are text; the others are numbers or JSON."""


def records_csv(records: Sequence[Record]) -> str:
    """Every field of every record; the names of the fields also where there is no record."""
    rows = [[_cell(value) for value in record.to_dict().values()] for record in records]
    # As objects: a column of whole numbers with gaps would become one of floats.
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object).to_csv(index=False)


def record_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row a record, one column a field; the columns also where there is no record."""
    return pd.DataFrame([record.to_dict() for record in records], columns=COLUMNS)


def _cell(value: Any) -> Any:
    """The value as records.csv has it: JSON where CSV has no form for it."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, tuple) and not value:
        return "[]"  # most are, and a study has a hundred thousand of them
    if isinstance(value, (bool, dict, list, tuple)):
        return json.dumps(value)
    return value


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would run."""


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula: after an apostrophe.

    So is a text that begins with one, so that `_parsed` can tell.
    """
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def called(records: Iterable[Record], name: str, where: Path) -> Record:
    """Return the record that page and `run` call `name`: 17, #17, or a reference's name.

    Raises UserError if there is none, in `where`.
    """
    named = {key: record for record in records for key in (record.tag, record.name) if key}
    found = named.get(name) or named.get(name.removeprefix("#"))
    if found is None:
        hint = nearest(name, named) if named else "it has none"
        raise UserError(f"{where} has no candidate {name!r}", hint)
    return found


def read_records(folder: Path) -> list[Record]:
    """The records of a report, from its records.csv.

    Raises UserError if there is none, or it is not one of this version.
    """
    path = folder / RECORDS_FILE
    try:
        # The module csv takes no cell as large as the errors of a thousand classes.
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        return [_record(row) for row in rows.to_dict("records")]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}", "name the folder of a report"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the records.csv of a report of this version") from None


def _record(row: Mapping[Any, str]) -> Record:
    return Record.from_dict({key: _parsed(key, cell) for key, cell in row.items()})


def _parsed(key: str, cell: str) -> Any:
    """The value of a cell of records.csv: an empty cell is None, or "" where the field is text."""
    if key in TEXT_FIELDS:
        return cell.removeprefix("'")
    return json.loads(cell) if cell else None


def record_table(findings: Findings, records: Sequence[Record]) -> pd.DataFrame:
    """The columns that a person compares, as text, of these records of the findings."""
    metric = findings.metric
    return pd.DataFrame([_row(metric, record, findings.finals.mean(record)) for record in records])


def validation_text(record: Record) -> str:
    """'81.2 (SE 1.0)', or why there is none."""
    if record.val_metric is not None and record.val_standard_error is not None:
        once = record.metric.once
        return f"{once(record.val_metric)} (SE {once(record.val_standard_error)})"
    if record.stopped:
        return "stopped"
    return "failed" if record.failure else "–"


def finalist_table(findings: Findings) -> pd.DataFrame:
    """The finalists as text, the cheapest first."""
    times = measured_times(findings.records)
    rows = [_finalist_row(findings, one, times) for one in findings.finalists]
    return pd.DataFrame(rows).fillna("–")  # a continued study may measure more than before


def _finalist_row(findings: Findings, finalist: Finalist, times: Sequence[str]) -> dict[str, str]:
    record, test, metric = finalist.record, finalist.test, finalist.record.metric
    interval = ""
    if test.low is not None and test.high is not None:
        interval = f"{metric.text(test.low)} to {metric.text(test.high)}"
    return {
        "#": record.tag,
        "name": record.name or record.origin,
        "placement": record.placement,
        f"mean test {metric.title}": metric.text(test.mean),
        "s.d.": "" if test.sd is None else metric.text(test.sd),
        "90 % interval": interval,
        "n": str(test.n),
        **{f"mean test {title}": text for title, text in further_texts(record).items()},
        **fit_texts(record),
        "to expect": metric.text(findings.finals.expected(record)),
        "on the front": front_text(finalist) if findings.finals.verdicts else "–",
        **_cost_texts(record, times),
    }


def expected_table(findings: Findings, base: Mapping[str, int]) -> pd.DataFrame:
    """What the model of effects expects to be better, as text; `base` are the backbone's counts."""
    metric = findings.metric
    rows = [
        {
            "at no more MACs than": one.beside.label,
            "expected to be best": one.placement.text,
            "trained": "no" if one.record is None else _trained_text(one.record),
            "parameters, %": f"{100 * one.params / base['params']:+z.2f}",
            "MACs (conv + fc), %": f"{100 * one.macs / base['macs_conv_fc']:+z.2f}",
            metric.difference_title("beside it"): metric.signed(one.difference),
            "90 % interval": metric.range(one.low, one.high),
            "chance to be better": chance_text(one.chance),
        }
        for one in findings.expected
    ]
    return pd.DataFrame(rows)


def _trained_text(record: Record) -> str:
    """'#19, tested'."""
    return f"#{record.tag}, {'tested' if record.is_tested else 'not tested'}"


def _cost_texts(record: Record, times: Sequence[str]) -> dict[str, str]:
    """A record's overheads by title, and those of its times that were measured of any."""
    counts = {f"{title}, %": f"{record.objective(key):+z.2f}" for key, title in AXES.items()}
    return {**counts, **{f"{TIMES[key]}, %": time_text(record, key) for key in times}}


def measured_times(records: Sequence[Record]) -> list[str]:
    """The overheads in time that were measured of any record: keys of TIMES."""
    return [key for key in TIMES if any(getattr(record, key) is not None for record in records)]


def time_text(record: Record, key: str) -> str:
    """'+72 (+70 to +75)', an overhead in time with its 95 % interval; a dash without one."""
    if getattr(record, key) is None:
        return "–"
    ends = " to ".join(f"{round(end):+}" for end in getattr(record, LATENCIES[key]))
    return f"{round(record.final_cost(key)):+} ({ends})"


def further_texts(record: Record) -> dict[str, str]:
    """What the task measures beside its metric: '43.21 ± 0.30' by title, over the seeds."""
    return {title: mean_text(record.metric, each) for title, each in record.test_further.items()}


def fit_texts(record: Record) -> dict[str, str]:
    """How well the training samples are fitted, over the seeds; empty if it was not measured."""
    metric, gaps = record.metric, record.generalisation_gaps
    if not gaps:
        return {}
    return {
        f"training {metric.title}": mean_text(metric, record.train_metrics),
        metric.difference_title("test minus training"): mean_text(metric, gaps),
    }


def mean_text(metric: Metric, values: Sequence[float]) -> str:
    """'43.21 ± 0.30': the mean, and the standard deviation of several values."""
    each = mean(values)
    spread = "" if each.sd is None else f" ± {metric.text(each.sd)}"
    return f"{metric.text(each.mean)}{spread}"


def front_text(finalist: Finalist) -> str:
    """'38 %': how surely it is on the front; no estimate is surer than 99 %, nor one of a seed."""
    if finalist.is_cheapest:
        return "cheapest: on it by cost"
    if len(finalist.record.test_metrics) < 2:
        return "–"
    return chance_text(finalist.p_on_front)


def chance_text(chance: float) -> str:
    """'38 %'; no estimate is surer than 99 %."""
    if chance > 0.99:
        return "> 99 %"
    if chance < 0.01:
        return "< 1 %"
    return f"{100 * chance:.0f} %"


def difference_table(findings: Findings) -> pd.DataFrame:
    """Each finalist beside each reference."""
    references = [record.name for record in findings.tested_references]
    rows = []
    for finalist in findings.finalists:
        record = finalist.record
        compared = findings.compared_to_references(record)
        texts = {one.other.name: difference_text(one) for one in compared}
        columns = {f"minus {name}": texts.get(name, "") for name in references}
        rows.append({"#": record.tag, "placement": record.label, **columns})
    return pd.DataFrame(rows)


def ablation_table(findings: Findings) -> pd.DataFrame:
    """What leaving a site out of the ablated placement changes."""
    rows = [
        {
            "placement": one.record.name,
            f"test {findings.metric.name} minus that with all sites": difference_text(one),
        }
        for one in findings.ablations
    ]
    return pd.DataFrame(rows)


def budget_table(findings: Findings) -> pd.DataFrame:
    """What is recommended within each overhead budget."""
    rows, times = [], measured_times(findings.records)
    for answer in findings.answers:
        found, metric = answer.recommendation, answer.record.metric
        row = {
            "#": answer.record.tag,
            "overhead": answer.question,
            "placement": answer.record.label,
            f"test {metric.title}, to expect": metric.text(found.expected),
            **_cost_texts(found.record, times),
            "minus no attention": "" if found.baseline is None else difference_text(found.baseline),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def difference_text(compared: ComparedTo) -> str:
    """'-0.61 (-1.02 to -0.20), n = 3: better', or '...: cannot tell within 0.85'."""
    difference, metric, interval = compared.difference, compared.record.metric, ""
    if difference.low is not None and difference.high is not None:
        interval = f" ({metric.range(difference.low, difference.high)})"
    return (
        f"{metric.signed(difference.mean)}{interval}, n = {difference.n}: {verdict_text(compared)}"
    )


def verdict_text(compared: ComparedTo) -> str:
    """'better', 'worse', or why that cannot be told: 'cannot tell within 0.85'."""
    if compared.verdict != "unclear":
        return compared.verdict
    if not compared.has_verdict:
        return "not compared near chance"
    if compared.difference.n < MIN_SEEDS:
        return "too few seeds"
    if compared.smallest is None:
        return "cannot tell"
    return f"cannot tell within {compared.record.metric.text(compared.smallest)}"


def test_text(metric: Metric, test: Mean | None) -> str:
    """'81.63 ± 0.21 (3)': mean, standard deviation and number of tests; "" without one."""
    if test is None:
        return ""
    spread = "" if test.sd is None else f" ± {metric.text(test.sd)}"
    return f"{metric.text(test.mean)}{spread} ({test.n})"


def _row(metric: Metric, record: Record, test: Mean | None) -> dict[str, str]:
    return {
        "#": record.tag,
        "origin": record.origin,
        "name": record.name,
        "placement": record.placement,
        f"validation {metric.title}": validation_text(record),
        **{
            f"validation {title}": metric.once(value) for title, value in record.val_further.items()
        },
        f"test {metric.title} (n)": test_text(metric, test),
        "params, M": f"{record.params / 1e6:.3f}",
        "params, +%": f"{record.params_overhead:+z.2f}",
        "MACs conv+fc, M": f"{record.macs_conv_fc / 1e6:.3f}",
        "MACs conv+fc, +%": f"{record.macs_conv_fc_overhead:+z.2f}",
        "MACs all, +%": f"{record.macs_overhead:+z.2f}",
        **_predicted(record),
        "seconds": "" if record.seconds is None else f"{record.seconds:.1f}",
    }


def _predicted(record: Record) -> dict[str, str]:
    """The times that were predicted, by title."""
    known = [(title, getattr(record, OBJECTIVES[key])) for key, title in TIMES.items()]
    return {f"{title}, predicted +%": f"{round(t):+}" for title, t in known if t is not None}
