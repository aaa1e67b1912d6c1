"""`train`: train a candidate of a report again, as the study trains its finalists.

A study keeps no weights; this keeps them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from bam_search.cli.candidate import Setup, find, setup
from bam_search.errors import UserError
from bam_search.files import atomic_write, write
from bam_search.model.build import sites_of
from bam_search.score.context import TrainingContext
from bam_search.score.device import on_device
from bam_search.score.evaluate import faster
from bam_search.score.measure import measured
from bam_search.score.train import EpochResult, train
from bam_search.search.finalists import FRESH
from bam_search.words import counted


def train_candidate(
    folder: Path,
    tag: str,
    seed: int | None,
    source: str | None,
    weights: str | None,
    modules: Mapping[str, str],
    device: str,
    out: Path,
) -> None:
    """Train the candidate that the report calls `tag`, test it, and write its state dict to `out`.

    How samples enter the model, and the names of its classes, are written beside it.
    It is trained as the study's finalists are. Without `seed`, the seed is the first one
    of the study's finalists. `weights` is the file of the pretrained weights that the study started
    from, if it did. `modules` says where modules of the user's lie now.

    Raises UserError.
    """
    _check_out(out)
    candidate = find(folder, tag, modules)
    how = setup(folder, source, device)
    seed = how.seed + FRESH if seed is None else seed
    start = candidate.start(weights or "")
    net = on_device(candidate.net(seed, start), how.device.type)
    click.echo(
        f"training #{tag}, {candidate.record.placement}, "
        f"on {counted(len(how.parts.train), how.task.sample)} of {how.data.name}, seed {seed}",
        err=True,
    )
    context = how.context
    blocks = sites_of(candidate.space).blocks
    with faster(net, blocks, how.recipe):
        epochs: tuple[EpochResult, ...] = train(net, context, how.recipe, seed, start=start)
    metric = how.task.metric
    test = measured(net, how.parts.test, context)
    value = metric.with_unit(metric.text(test.value))
    with atomic_write(out) as file:
        torch.save({key: value.cpu().contiguous() for key, value in net.state_dict().items()}, file)
    write(beside(out), json.dumps(_input_words(how, context), indent=2, ensure_ascii=False))
    trained = counted(len(epochs), "epoch")
    further = "".join(f", {title}: {metric.text(one)}" for title, one in test.further.items())
    click.echo(f"{out}: {value} test {metric.name} after {trained}, seed {seed}{further}")
    known = dict(zip(candidate.record.test_seeds, candidate.record.test_metrics, strict=True))
    if seed in known:
        before = metric.with_unit(metric.text(known[seed]))
        click.echo(f"the study measured {before} with this seed", err=True)
    click.echo(f"{beside(out)}: how {how.task.sample}s enter it, and its classes", err=True)


def _check_out(out: Path) -> None:
    """Make the folder of the weights. Raises UserError if they cannot be written there."""
    if out.is_dir():
        raise UserError(f"--out {out} is a folder", f"name a file, such as {out / 'weights.pt'}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}", "name a file in another folder") from None


def beside(weights: Path) -> Path:
    """Return the file beside a file of weights that says what its model takes and tells."""
    return weights.with_name(f"{weights.name}.json")


def _input_words(how: Setup, context: TrainingContext) -> dict[str, Any]:
    """Return how samples enter a model, as far as the task says it, and the classes' names."""
    preprocessing = getattr(context.data, "preprocessing", {})
    return {**preprocessing, "label_names": list(how.data.classes)}
