"""The commands of the command line.

Data go to stdout, messages to stderr. Exit codes: 0 done, 1 ran but could not deliver, 2 a user's
mistake, 130 interrupted.
"""

import math
import re
import sys
from pathlib import Path
from typing import Any

import click

from bam_search import __version__
from bam_search.errors import ExplainedError, UserError

# The same as in score.device and search.executors, which import torch.
DEVICES = ("auto", "cuda", "cpu")
EXECUTORS = ("local", "ray")
BEYOND_REPORTS = ("torch", "torchvision", "optuna", "fvcore", "sqlalchemy", "rich", "PIL")
"""Packages that an installation for reports alone lacks: requirements-report.txt."""
WITHOUT = "reports are read, verified and drawn without it; all else is for `pip install .`"
LONGEST = 1e8
"""Seconds, three years: timers take no more."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Seconds in each unit of a time on the command line."""
Spaces = str | tuple[str, ...] | None
"""The names of spaces on the command line: one, several, or none given."""


def _definitions(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, str]:
    """Return the sources by name of texts such as `coord=my_module.py:CoordAttention`.

    Raises UserError.
    """
    from bam_search.space.modules import parse_definitions

    return dict(parse_definitions(texts))


def _tag(folder: Path, candidate: str | None) -> str:
    """What the report calls a candidate, by default the one that it recommends."""
    from bam_search.cli.candidate import recommended, tag_of

    return recommended(folder) if candidate is None else tag_of(folder, candidate)


# The arguments and options that several commands on a candidate of a finished report share.
REPORT = click.argument(
    "folder", metavar="STUDY_DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
PAGE = click.argument("path", metavar="STUDY_DIR|PAGE", type=click.Path(path_type=Path))
BESIDE = click.option(
    "--beside",
    metavar="N",
    help="The candidate that differences are to: 17, R3, 'SE in every block'.  "
    "[default: no attention]",
)
CANDIDATE = click.option(
    "--candidate",
    metavar="N",
    help="What the report calls a candidate: 17, R3, A5001, 'SE in every block'.  "
    "[default: the recommended one]",
)
STUDY_DATA = click.option(
    "--data",
    "source",
    metavar="PATH|NAME",
    help="The data that the study was run on, as for `run`.  [default: as the study was told]",
)
MODULES = click.option(
    "--module",
    "modules",
    multiple=True,
    callback=_definitions,
    metavar="NAME=FILE.py:CLASS",
    help="Where an attention module of yours lies now.  [default: where the study found it]",
)
DEVICE = click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)


def _seconds(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> float | None:
    """Return '90m', '8h' or '600' in seconds, and None for None.

    Raises BadParameter.
    """
    if text is None:
        return None
    has_unit = text[-1:] in UNITS
    number, unit = (text[:-1], text[-1]) if has_unit else (text, "s")
    try:
        seconds = float(number) * UNITS[unit]
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < LONGEST:
        raise click.BadParameter(f"{text!r} is no time above zero: write seconds, or 90m, 8h, 1d.")
    return seconds


def _shape(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Return what `parse_shape` reads; None for None."""
    return None if text is None else parse_shape(text)


def parse_shape(text: str) -> tuple[int, ...]:
    """Return '3x224x224' as (3, 224, 224), and CxL or CxDxHxW likewise. Raises UserError."""
    sizes = text.lower().split("x")
    if not 2 <= len(sizes) <= 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise UserError(f"--input {text!r} is not CxHxW", "for example --input 3x224x224")
    return tuple(map(int, sizes))


def _name(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """Return `text`, a name that a folder and a database can have. Raises BadParameter."""
    if text is not None and not re.fullmatch(r"[\w][\w. -]{0,199}", text):
        raise click.BadParameter(
            f"{text!r}: letters, digits, '-', '_', '.' and spaces make a name."
        )
    return text


def _study(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    """Return `name`, of a study that exists. Raises UserError."""
    from bam_search.config import find

    find("studies", name, ".toml")  # here, before anything imports torch, which takes seconds
    return name


def _spaces(_context: click.Context, _parameter: click.Parameter, given: Spaces) -> Spaces:
    """Return `given`, the names of spaces; those that ship with bam_search exist.

    Raises UserError.
    """
    from bam_search.space.search_space import check_space

    for name in [given] if isinstance(given, str) else given or ():
        if ":" not in name:  # neither a library's nor a user's
            check_space(name)
    return given


# The options that `run` and `plan` share.
STUDY = click.option(
    "--study",
    required=True,
    callback=_study,
    metavar="NAME|PATH",
    help="A study in studies/, or a path to a TOML file.",
)
SPACE = click.option(
    "--space",
    callback=_spaces,
    metavar="NAME",
    help="Another space than the study's: "
    "one that ships, torchvision:NAME, timm:NAME, file.py:function, 'file.py:Net(depth=3)'.",
)
OWN_MODULES = click.option(
    "--module",
    "modules",
    multiple=True,
    callback=_definitions,
    metavar="NAME=FILE.py:CLASS",
    help="Search an attention module of yours; as --set search.modules.NAME.from=FILE.py:CLASS.",
)
WANTED_DEVICE = click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="auto: a GPU if there is one.",
)
DATA = click.option(
    "--data",
    "source",
    metavar="PATH|NAME",
    help="Labelled images: a folder, an .npz, Parquet files, torchvision:NAME, file.py:function, "
    "cifar-100-python/, auto, cifar100, generated; or what a task of yours takes.",
)
SET = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any key of the study, such as recipe.lr=0.2.",
)
BUDGET = click.option(
    "--budget",
    callback=_seconds,
    metavar="TIME",
    help="Plan for 10m, 8h, 1d or so many seconds: images, epochs, candidates and seeds that are "
    "not set.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="bam_search")
def cli() -> None:
    """Where should an attention module go in a CNN, and with which settings?"""


@cli.command()
@STUDY
@SPACE
@OWN_MODULES
@click.option(
    "--trials", type=int, help="The total of candidates, references and finished ones included."
)
@click.option("--epochs", type=int, help="Epochs of each training.")
@click.option("--seed", type=int, help="Seed of weights, data order, split and search.")
@WANTED_DEVICE
@click.option("--workers", type=int, help="Trainings at the same time.")
@DATA
@click.option(
    "--weights",
    metavar="FILE",
    help="Pretrained weights that the backbone of each training starts from.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The study's folder.  [default: reports/<name>]"
)
@click.option(
    "--name",
    callback=_name,
    help="The study's name, in --storage too.  [default: that of its file]",
)
@click.option(
    "--storage",
    metavar="URL",
    help="An SQL database for the trials, such as postgresql://user@host/db.  "
    "[default: in the folder]",
)
@click.option(
    "--executor",
    type=click.Choice(EXECUTORS),
    default="local",
    show_default=True,
    help="Who trains: this machine, a Ray cluster.",
)
@click.option(
    "--address",
    help="The Ray cluster: auto is the one of this machine, local starts one here.  "
    "[default: auto]",
)
@BUDGET
@click.option(
    "--time-limit",
    callback=_seconds,
    metavar="TIME",
    help="End after 90m, 8h, 1d or so many seconds; the search ends in time for the finals.",
)
@click.option(
    "--max-failures",
    type=click.IntRange(1),
    metavar="N",
    help="Give up when N candidates have failed.",
)
@click.option("--force-new", is_flag=True, help="Set a study of this name aside, and begin anew.")
@SET
@click.option(
    "--smoke",
    is_flag=True,
    help="As small as the study can be, to see that all of it works; what you set stays.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the data, the resolved study, its costs and its time; train nothing.",
)
def run(
    device: str,
    study: str,
    assignments: tuple[str, ...],
    smoke: bool,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Run a study, or continue it; write its report."""
    from bam_search.cli.dry_run import print_dry_run
    from bam_search.cli.progress import steps
    from bam_search.cli.run import execute
    from bam_search.running.prepare import Request, RunOptions

    # What is left in `flags` after this are keys of the study.
    options = RunOptions(**{field: flags.pop(field) for field in RunOptions.__dataclass_fields__})
    request = Request(
        study, device, assignments, _table(flags), options, progress=steps, smoke=smoke
    )
    raise SystemExit(print_dry_run(request) if dry_run else execute(request))


@cli.command()
@STUDY
@SPACE
@OWN_MODULES
@WANTED_DEVICE
@DATA
@BUDGET
@click.option(
    "--device-speed",
    metavar="NAME|IMAGES_PER_S",
    help="Plan for another machine: h100, rtx4090, ...; or how many images a second the network "
    "without attention trains on it.  [default: measure this machine]",
)
@SET
def plan(device: str, study: str, assignments: tuple[str, ...], **asked: Any) -> None:
    """Say what a study does with a budget of time, and what it can tell then; train nothing."""
    from bam_search.cli import plan as planning
    from bam_search.cli.progress import steps
    from bam_search.running.prepare import Request, RunOptions

    speed = asked.pop("device_speed")
    options = RunOptions(budget=asked.pop("budget"))
    request = Request(study, device, assignments, _table(asked), options, progress=steps)
    planning.print_plan(request, speed)


@cli.command()
@click.option(
    "--space",
    "spaces",
    multiple=True,
    callback=_spaces,
    metavar="NAME",
    help="As MODEL of `sites`.  [default: all that ship for CIFAR-100]",
)
@click.option(
    "--placement",
    "placements",
    multiple=True,
    metavar="TEXT",
    help="'bottleneck', 'layer1=bam layer2=se', ...  [default: the paper's]",
)
@click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="TEXT",
    help="What goes to targets without one, such as 'bam(r=8,d=2)', "
    "or one of yours: NAME=FILE.py:CLASS.  [default: bam]",
)
@click.option(
    "--insertion",
    type=click.Choice(("plain", "identity")),
    default="plain",
    show_default=True,
    help="As `start.insertion` of a study: identity adds a gate to each module.",
)
@click.option(
    "--input",
    "shape",
    callback=_shape,
    metavar="CxHxW",
    help="The shape of one image.  [default: what each space is made for]",
)
@click.option(
    "--classes", type=click.IntRange(2), metavar="N", help="How many.  [default: likewise]"
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="For machines: an object, or a list of objects where there are several.",
)
@click.option(
    "--audit",
    is_flag=True,
    help="Trace each model with fvcore too, and fail if it counts otherwise.",
)
@click.option(
    "--latency",
    is_flag=True,
    help="Measure the time beside the backbone's, as trained and as deployed, and the memory of a "
    "training step.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Where to measure.",
)
@click.option(
    "--batch",
    type=click.IntRange(2),
    default=32,
    show_default=True,
    help="Images at once when measuring.",
)
def count(as_json: bool, **asked: Any) -> None:
    """Count parameters, MACs and activations of placements; train nothing."""
    from bam_search.cli import count as counting

    rows = counting.rows(counting.Asked(**asked))
    if as_json:
        click.echo(counting.as_json(list(rows)))
    else:
        counting.print_table(rows)


@cli.command()
@click.argument("model", metavar="MODEL", callback=_spaces)
@click.option(
    "--input",
    "shape",
    callback=_shape,
    metavar="CxHxW",
    help="The shape of one image; CxL of a sequence.  [default: what the model was made for]",
)
@click.option(
    "--target", metavar="TEXT", help="Only what this names: bottleneck, layer3.*, /layer[34]/, ..."
)
@click.option("--json", "as_json", is_flag=True, help="For machines: a list of objects.")
def sites(model: str, shape: tuple[int, ...] | None, target: str | None, as_json: bool) -> None:
    """Show where attention can go in MODEL, what BAM costs there, and why it cannot go elsewhere.

    MODEL is a search space, torchvision:NAME, timm:NAME, or path/to/file.py:function; the last
    three with arguments if need be: 'net.py:Net(depth=3)'.
    """
    from bam_search.cli import sites as listing

    listing.show(model, shape, target, as_json)


@cli.command()
@REPORT
@CANDIDATE
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write.  [default: STUDY_DIR/candidate-N]",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A state dict that you trained, saved by torch.save.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(("pt2", "onnx")),
    help="Also a torch.export program, or ONNX.",
)
@MODULES
def export(
    folder: Path,
    candidate: str | None,
    out: Path | None,
    weights: Path | None,
    formats: tuple[str, ...],
    modules: dict[str, str],
) -> None:
    """Write a candidate of a study as placement.json and a Python file.

    All that is written is loaded again and compared with the candidate.
    """
    from bam_search.cli import export as exporting

    tag = _tag(folder, candidate)
    target = out or folder / f"candidate-{tag}"
    exporting.export(folder, tag, target, weights, formats, modules)


@cli.command()
@REPORT
@CANDIDATE
@click.option(
    "--seed",
    type=int,
    help="Seed of weights and data order.  [default: the first one of the study's finalists]",
)
@STUDY_DATA
@click.option(
    "--weights",
    metavar="FILE",
    help="The pretrained weights that the study started from, if it did.",
)
@MODULES
@DEVICE
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write the weights.  [default: STUDY_DIR/candidate-N.pt]",
)
def train(folder: Path, candidate: str | None, out: Path | None, **asked: Any) -> None:
    """Train a candidate of a study again, test it, and keep its weights.

    It is trained as the study trains its finalists.
    """
    from bam_search.cli import train as training

    tag = _tag(folder, candidate)
    target = out or folder / f"candidate-{tag}.pt"
    training.train_candidate(folder, tag, out=target, **asked)


@cli.command()
@REPORT
@CANDIDATE
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    required=True,
    help="A state dict of it, such as `train` writes.",
)
@STUDY_DATA
@click.option(
    "--images",
    "pictures",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder of your own pictures.  [default: test samples]",
)
@click.option(
    "--count", type=click.IntRange(1, 200), default=8, show_default=True, help="How many."
)
@MODULES
@DEVICE
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write.  [default: STUDY_DIR/candidate-N-maps.html]",
)
def maps(folder: Path, candidate: str | None, out: Path | None, **asked: Any) -> None:
    """Show where on a sample a trained candidate's attention amplifies, site after site."""
    from bam_search.cli import maps as showing

    tag = _tag(folder, candidate)
    target = out or folder / f"candidate-{tag}-maps.html"
    showing.show(folder, tag, out=target, **asked)


@cli.command()
@PAGE
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write what PAGE gives.  [default: PAGE]",
)
@click.option(
    "--plotlyjs",
    type=click.Choice(("inline", "cdn")),
    default="inline",
    show_default=True,
    help="cdn: a small page that needs the network.",
)
@click.option(
    "--watch",
    "every",
    callback=_seconds,
    metavar="TIME",
    help="Go on: look every 30, 5m or so for new candidates, and write it again.",
)
@click.option(
    "--verify",
    "only_verify",
    is_flag=True,
    help="Write nothing: make the page again from its own records, and compare all of it.",
)
def report(**asked: Any) -> None:
    """Write a study's page anew, finished or running; or a page from its own records.

    The latter needs neither the study's folder nor its database.
    """
    from bam_search.cli import report as reporting

    raise SystemExit(reporting.do(reporting.Asked(**asked)))


@cli.command()
@PAGE
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="front.pdf",
    show_default=True,
    help="Where to write: .pdf, .svg or .png.",
)
@click.option(
    "--width",
    type=click.Choice(("column", "page")),
    default="column",
    show_default=True,
    help="Of a two-column page: one of its columns, or all of it.",
)
@click.option("--latex", is_flag=True, help="Print LaTeX that shows it, with the caption.")
@click.option(
    "--cost",
    "costs",
    multiple=True,
    help="An overhead to draw against, such as latency_overhead; give two for two panels. "
    "[default: those of the page]",
)
@BESIDE
def figure(
    path: Path, out: Path, width: str, latex: bool, costs: tuple[str, ...], beside: str | None
) -> None:
    """Draw all that a study tested for a paper, and print the caption.

    The metric is drawn against two overheads, with intervals over seeds: parameters and MACs, or
    the time that the study searched by.
    """
    from bam_search.cli import paper

    paper.write_figure(path, out, width, latex, costs, beside)


@cli.command()
@PAGE
@click.option("--markdown", "form", flag_value="markdown", default=True, help="[default]")
@click.option("--latex", "form", flag_value="latex", help="With the rules of booktabs.")
@click.option("--csv", "form", flag_value="csv", help="One row a placement, nothing rounded.")
@click.option("--bibtex", "form", flag_value="bibtex", help="What to cite, in place of a table.")
@click.option(
    "--rows",
    type=click.Choice(("main", "tested")),
    help="main: the references, the recommended and the best one; tested: all that was tested.  "
    "[default: main; tested for --csv]",
)
@BESIDE
def table(path: Path, form: str, rows: str | None, beside: str | None) -> None:
    """Print a study's table for a paper, with a caption."""
    from bam_search.cli import paper

    paper.print_table(path, form, rows, beside)


@cli.command()
@click.argument(
    "folders", metavar="STUDY_DIR STUDY_DIR ...", nargs=-1, type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="reports/compare",
    show_default=True,
    help="Where to write the page.",
)
def compare(folders: tuple[Path, ...], out: Path) -> None:
    """Show finished studies in one Pareto front and one page.

    The front is of their metric against parameters and MACs of the whole network.
    """
    from bam_search.cli import compare as comparing

    comparing.compare(folders, out)


@cli.command()
@click.argument("folder", metavar="STUDY_DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For machines: an object.")
def status(folder: Path, as_json: bool) -> None:
    """Say who runs a study, what is under way and what is done."""
    from bam_search.cli import status

    click.echo(status.status_json(folder) if as_json else status.status_text(folder))


@cli.command()
@click.argument("folder", metavar="STUDY_DIR", type=click.Path(path_type=Path))
def stop(folder: Path) -> None:
    """End a study that runs on this machine, as Ctrl-C does.

    What is finished is kept, and `run` continues the study.
    """
    from bam_search.cli import status

    raise SystemExit(status.stop(folder))


@cli.command(name="list")
@click.option("--keys", is_flag=True, help="The keys of a study instead, with what they mean.")
def show_names(keys: bool) -> None:
    """Name the search spaces, attention modules and studies."""
    from bam_search.cli import catalogue

    if keys:
        catalogue.show_keys()
    else:
        catalogue.show()


def _table(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, as a table of the study's keys."""
    given = {key: value for key, value in flags.items() if value is not None}
    modules = given.pop("modules", {})
    nested = {"epochs": "recipe", "source": "data", "weights": "start"}
    table: dict[str, Any] = {key: value for key, value in given.items() if key not in nested}
    if modules:
        sources = {name: {"from": source} for name, source in modules.items()}
        table["search"] = {"modules": sources}
    for key, parent in nested.items():
        if key in given:
            table[parent] = {key: given[key]}
    return table


def main() -> None:
    """Run the command line, and exit."""
    try:
        sys.exit(cli.main(prog_name="python -m bam_search", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ExplainedError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except ModuleNotFoundError as error:
        if error.name not in BEYOND_REPORTS:
            raise
        click.echo(f"error: this needs {error.name}, which is not installed", err=True)
        click.echo(f"hint: {WITHOUT}", err=True)
        sys.exit(1)
    # A full disk, a folder that went away: asking for something else would not mend it.
    except OSError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
