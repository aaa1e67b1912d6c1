"""A page of text: what was reached, what ran, what failed, and the figures that say most."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.gpu.folder import Folder
from benchmarks.gpu.goals import goals, usual
from benchmarks.gpu.parts import ABSENT, CUT_OFF, FAILED, Known, now
from benchmarks.gpu.runner import Outcome
from benchmarks.gpu.stages import STAGES

Found = Mapping[str, Any]
SAID = 4
"""Answers of a study that are shown."""
ROWS = 30
"""Rows of a part that are shown; all are in the JSON."""
COLUMNS = (
    ("net", 9),
    ("placement", 21),
    ("build", 6),
    ("to device", 10),
    ("first steps", 12),
    ("capture", 8),
    ("full speed", 11),
    ("ms eager", 9),
    ("ms as is", 9),
    ("images/s", 9),
    ("10,000 measured", 16),
    ("MiB", 7),
)
"""Of the table of phases: seconds, but where the head says otherwise."""


def text(folder: Folder, spent: str) -> str:
    """The page; `spent` says what this call took."""
    about, versions = folder.about, folder.about["versions"]
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    known = folder.known()
    lines = [f"{about['device']}, {now()}, {spent}", told, f"data: {about['data']}"]
    lines += ["", "Goals"]
    lines += _goals(about, known)
    lines += ["", "Stages", *(line for stage in STAGES for line in _stage(stage.name, folder))]
    lines += ["", "What failed, was cut off or is not there", *(_trouble(folder) or ["  nothing"])]
    for name, show in SHOWN.items():
        if known.get(name):
            lines += ["", f"{name}: {_question(name)}", *show(known[name])]
    return "\n".join(lines) + "\n"


def _question(name: str) -> str:
    return next(stage.question for stage in STAGES if stage.name == name)


def _goals(about: Found, known: Known) -> list[str]:
    if about["tiny"]:
        return [
            "  a tiny run: it shows that every stage works, "
            "and its figures say nothing of the goals"
        ]
    return [goal.line(known) for goal in goals(about["device"])]


def _stage(name: str, folder: Folder) -> Iterator[str]:
    outcome, where = folder.outcomes.get(name), folder.where.get(name, {})
    if outcome is None:
        yield f"  {name:12} not begun"
        return
    done = sum(part["state"] == "done" for part in outcome.parts.values())
    parts = f"{done} of {len(outcome.listed) or len(outcome.parts)} parts"
    elsewhere = "" if where["device"] == folder.about["device"] else f", on {where['device']}"
    why = f", {outcome.why}" if outcome.why else ""
    time = f"{where['seconds']:6.1f} s of {where['limit']:4} s"
    yield f"  {name:12} {outcome.state:9} {time}, {parts}{why}{elsewhere}"


def _trouble(folder: Folder) -> list[str]:
    return [
        f"  {stage.name} / {name}: {part['state']}, {part['why']}"[:300]
        for stage in STAGES
        for name, part in _parts(folder.outcomes.get(stage.name))
        if part["state"] in (FAILED, ABSENT, CUT_OFF)
    ]


def _parts(outcome: Outcome | None) -> list[tuple[str, Found]]:
    return list(outcome.parts.items()) if outcome else []


def _machine(found: Found) -> list[str]:
    lines = [f"  {name}: {value}" for name, value in found.get("device", {}).items()]
    if programs := found.get("programs"):
        compiler = "yes" if programs["c_compiler"] else "NO, so torch.compile cannot work"
        installed = [name for name, path in programs["found"].items() if path]
        packages = [
            f"{name} {version}" for name, version in programs["packages"].items() if version
        ]
        lines += [
            f"  C compiler: {compiler}",
            f"  programs: {', '.join(installed)}",
            f"  packages: {', '.join(packages)}",
        ]
    return lines


def _tests(found: Found) -> list[str]:
    outcomes = [pair for part in found.values() for pair in part["outcomes"].items()]
    counts = Counter(outcome.lower() for _, outcome in outcomes)
    lines = [f"  {', '.join(f'{n} {outcome}' for outcome, n in counts.items())}"]
    return lines + [
        f"  {outcome:8} {name}" for name, outcome in outcomes if outcome in ("FAILED", "ERROR")
    ]


def _studies(found: Found) -> list[str]:
    lines = []
    if plan := found.get("plan"):
        rates = plan["rates"]
        lines += [
            f"  plan: {plan['space']}, {plan['trials']} candidates, {plan['epochs']} epochs, "
            f"{plan['seeds']} seeds, {plan['workers']} at a time; "
            f"{rates['images_per_s']:,.0f} images/s and {rates['around']:.2f} s around a training, "
            f"by {rates['source']}"
        ]
    if dry := found.get("dry run"):
        lines += [f"  dry run: {line}" for line in dry["said"]]
    if study := found.get("study"):
        lines.append(_took(study))
        answers = [line for line in study["said"] if line.startswith("  at most")] if plan else []
        lines += [f"  | {line[:130]}" for line in answers[:SAID]]
    return lines


def _took(study: Mapping[str, Any]) -> str:
    """How long a study took, beside what its plan and its own estimate said, if it had any."""
    estimates = ""
    if "took_of_plan" in study:
        estimates += f", {study['took_of_plan']:.2f} of the time planned"
    if "took_of_estimate" in study:
        estimates += f", {study['took_of_estimate']:.2f} of the time by its own estimate"
    return (
        f"  {study['seconds']:.0f} s{estimates}; {study['trainings']} trainings, "
        f"{study['finalists']} finalists"
    )


def _parity(found: Found) -> list[str]:
    lines = []
    if found.get("batches"):
        lines += ["  batches: equal, byte for byte"]
    if losses := found.get("losses"):
        named = [f"{name} {loss:.6f}" for name, loss in losses["losses"].items()]
        lines += [
            f"  losses: {'; '.join(named)}",
            f"  largest relative difference {losses['largest_relative_difference']:.1e}; "
            f"with TF32 {losses['with_tf32']:.6f}",
        ]
    return lines


def _kernels(found: Found) -> list[str]:
    lines = _table(found)
    for name, part in found.items():
        if "groups" in part:
            lines += [
                f"  {name}: {part['kernels_a_step']:.0f} a step, {part['ms_a_step']:.2f} ms",
                f"    {_groups(part)}",
            ]
        if "beside_the_bare_net" in part:
            more = part["beside_the_bare_net"]
            lines += [
                f"    beyond the bare net {more['kernels_a_step']:+.0f}, "
                f"{more['ms_a_step']:+.2f} ms: {_groups(more)}"
            ]
            lines += [
                f"      {row['calls']:+.0f}x {row['us']:+.0f} us {row['name'][:90]}"
                for row in more["top"][:4]
            ]
    return lines


def _table(found: Found) -> list[str]:
    """Candidates' phases, a line each, below a head; nothing for none."""
    rows = [_row(part) for part in found.values() if "step_ms" in part and "seconds" in part]
    return [_aligned([name for name, _ in COLUMNS]), *map(_aligned, rows)] if rows else []


def _aligned(cells: list[str]) -> str:
    (_, first), (_, second), *rest = COLUMNS
    left = f"  {cells[0]:{first}}{cells[1]:{second}}"
    return left + "".join(
        f"{cell:>{width}}" for cell, (_, width) in zip(cells[2:], rest, strict=True)
    )


def _row(part: Found) -> list[str]:
    seconds, evaluation, memory = part["seconds"], part.get("evaluation"), part.get("mib")
    first = sum(
        value for key, value in seconds.items() if key.startswith("eager") or key == "prepare"
    )
    return [
        part["net"],
        part["placement"],
        f"{seconds['build']:.2f}",
        f"{seconds['to_device']:.2f}",
        f"{first:.2f}",
        f"{seconds['capture']:.2f}" if "capture" in seconds else "-",
        f"{part['to_full_speed_s']:.2f}",
        f"{part['eager_step_ms']:.2f}",
        f"{part['step_ms']:.2f}",
        f"{part['images_per_s']:,.0f}",
        f"{evaluation['s_for_10000']:.3f}" if evaluation else "-",
        f"{memory['most_allocated']}" if memory else "-",
    ]


def _groups(part: Found) -> str:
    return ", ".join(
        f"{name} {row['ms']:.2f} ms ({row['calls']:.0f})" for name, row in part["groups"].items()
    )


def _attention(found: Found) -> list[str]:
    """The plain numbers of each row: ratios of now to before, or of one layout to another."""
    lines = []
    for name, rows in found.items():
        lines += [f"  {name}"]
        for row, figures in list(rows.items())[:ROWS]:
            numbers = ", ".join(
                f"{key} {value:.3g}" for key, value in figures.items() if isinstance(value, float)
            )
            lines += [f"    {row:48} {numbers}"]
    return lines


def _speeds(stage: str) -> Callable[[Found], list[str]]:
    def lines(found: Found) -> list[str]:
        theirs = usual({stage: found}, stage)
        said = []
        for name, part in found.items():
            if "share_reached" in part:
                said += [
                    f"  bound: {part['images_per_s']:,.0f} images/s by the machine's rates, "
                    f"{part['share_reached']:.0%} reached"
                ]
            elif "images_per_s" in part and "seconds" not in part:
                times = f"  {part['images_per_s'] / theirs:6.2f} x the usual loop" if theirs else ""
                said += [f"  {name:60} {part['images_per_s']:11,.0f} images/s{times}"]
        return [*said, *_table(found)]

    return lines


SHOWN: Mapping[str, Callable[[Found], list[str]]] = {
    "machine": _machine,
    "tests": _tests,
    "first-study": _studies,
    "parity": _parity,
    "kernels": _kernels,
    "attention": _attention,
    "resnet18": _speeds("resnet18"),
    "study": _studies,
    "packed": _speeds("packed"),
    "resnet50": _speeds("resnet50"),
}
"""What is shown of a stage."""
