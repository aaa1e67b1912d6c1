"""Which cheap score ranks placements as long trainings do, and at what cost.

    python -m benchmarks.rungs --data cifar100.npz --out FILE.csv [--space small]
        [--placements none layer3=bam ...] [--long LONG.csv] [--seeds 0 1 2]
        [--rungs warm "one epoch" scratch gates supernet]

Without `--placements` all those of the long trainings' table are scored. The rungs, on the images
of `benchmarks.recipes` and with the recipe of the placement study's CPU variant:

scratch    a training of two epochs, from scratch: what the study does
one epoch  a training of one epoch, from scratch
warm       the backbone trains once, for BACKBONE_EPOCHS; each placement is put into it plainly, and
           trains for one epoch more, also the bare backbone
gates      first-order probes: attention behind gates at zero in that backbone, and the gradients
           of the held-out loss by these gates over PROBE_BATCHES batches
supernet   that backbone with every choice of every site behind gates trains once, for
           SUPERNET_EPOCHS, each step through a path drawn at random; each placement is a path

One row a predictor: `value` is small for a placement that is predicted to be good. `cpu_seconds`
are those of this placement's rung, on one thread; what all placements share has a row of its own.
Rows are appended as they come, and those that are there are not computed again.
`benchmarks.rung_agreement` judges them.
"""

import argparse
import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bam_search.model.attach import resolve
from bam_search.model.attention import create
from bam_search.model.build import build, sites_of
from bam_search.model.insert import FromIdentity
from bam_search.model.load import load
from bam_search.model.start import SCRATCH, Start, as_bytes
from bam_search.score.context import TrainingContext
from bam_search.score.device import Device, choose
from bam_search.score.evaluate import Experiment, Job, evaluate
from bam_search.score.measure import measured
from bam_search.score.train import train
from bam_search.search.study import load_study
from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import SearchSpace
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from bam_search.tasks.classification.on_device import NO_LABEL
from bam_search.tasks.classification.sources import locate
from bam_search.tasks.recipe import Recipe
from benchmarks.placement_table import agree, held_apart
from benchmarks.recipes import HELD_OUT, SIZE, about
from benchmarks.results import append_row, rows_done, rows_of

CONDITIONS = ("space", "rung", "placement", "seed")
COLUMNS = (*CONDITIONS, "predictor", "value", "cpu_seconds")
ALL = "(all)"
"""The placement of a row of what all placements share."""
BACKBONE_EPOCHS = 4
SUPERNET_EPOCHS = 4
PROBE_BATCHES = 8
SETTLING_BATCHES = 20
"""So many batches bring a path's batch normalisations to its own statistics."""
LONG = Path("benchmarks/results/placement_table_2_long_gpu.csv")
Values = Mapping[str, float]
"""By predictor."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What all rungs of a seed share: the space, the images, the recipe, and the placements."""

    experiment: Experiment
    space: SearchSpace
    context: TrainingContext
    texts: tuple[str, ...]
    seed: int

    def recipe(self, epochs: int) -> Recipe:
        """The study's recipe for so many epochs."""
        return replace(self.experiment.recipe, epochs=epochs).for_size(SIZE)

    def context_of(self, recipe: Recipe) -> TrainingContext:
        """The training images, augmented as the recipe says."""
        device, images = self.experiment.device, self.experiment.split.fit
        return TrainingContext.of(sources.task(), device, recipe, images)

    @functools.cached_property
    def start(self) -> Start:
        """The backbone's weights after a training of its own."""
        net = build(self.space, self.experiment.sites, "none", self.seed)
        net.to(memory_format=torch.channels_last)
        recipe = self.recipe(BACKBONE_EPOCHS)
        train(net, self.context_of(recipe), recipe, self.seed)
        return Start(weights=as_bytes(net.state_dict()))

    @functools.cached_property
    def supernet(self) -> "Supernet":
        """It is trained already."""
        net = Supernet(self)
        _train_paths(net, self, self.recipe(SUPERNET_EPOCHS))
        return net


def from_scratch(setting: Setting, text: str, epochs: int) -> Values:
    """Train a placement from scratch."""
    return _trained(setting, text, epochs, SCRATCH)


def warm(setting: Setting, text: str) -> Values:
    """Fine-tune a placement in the backbone."""
    return _trained(setting, text, 1, setting.start)


def _trained(setting: Setting, text: str, epochs: int, start: Start) -> Values:
    experiment = replace(setting.experiment, recipe=setting.recipe(epochs), start=start)
    result = evaluate(experiment, Job(text, setting.seed, epochs))
    assert result.score is not None, result.failure
    score = result.score
    losses = sum(epoch.loss for epoch in score.per_epoch)
    return {"error": score.value, "loss": score.loss, "sum of training losses": losses}


def gates(setting: Setting, text: str) -> Values:
    """The gradients of the held-out loss by gates at zero.

    "downhill": what a step of each gate along its gradient takes from the loss, to first order, is
    the sum of their squares. "signed": what opening all gates does to the loss.
    """
    net = _gated(setting, text)
    held_out = setting.context.data.held_out(setting.experiment.split.validation)
    found = [m.gate for m in net.modules() if isinstance(m, FromIdentity)]
    for number in range(PROBE_BATCHES):
        inputs, labels = held_out.batch(torch.tensor([number]))  # type: ignore[attr-defined]
        logits = setting.context.model(net)(inputs).float()
        loss = nn.functional.cross_entropy(logits, labels, ignore_index=NO_LABEL)
        (loss / PROBE_BATCHES).backward()
    gradients = [float(gate.grad) for gate in found if gate.grad is not None]
    return {"downhill": -sum(g * g for g in gradients), "signed": sum(gradients)}


def _gated(setting: Setting, text: str) -> nn.Module:
    """The trained backbone in eval mode, with attention in training mode behind gates at zero."""
    start = replace(setting.start, init="identity")
    net = build(setting.space, setting.experiment.sites, text, setting.seed, start).eval()
    for module in net.modules():
        if isinstance(module, FromIdentity):
            module.train()
    return net.to(memory_format=torch.channels_last)


class Supernet(nn.Module):
    """The trained backbone with all choices of all sites behind gates, one path at a time.

    In training each pass draws a path: at each site no attention, or one of its choices, alike.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.net = build(setting.space, setting.experiment.sites, "none", 0, setting.start)
        self.menu = _choices(setting.texts)
        self.inserted: dict[tuple[str, Choice], FromIdentity] = {}
        self.path: dict[str, Choice] = {}
        by_name = setting.experiment.sites.by_name
        for site, choices in self.menu.items():
            module = self.net.get_submodule(site)
            for choice in choices:
                made = FromIdentity(create(choice, by_name[site].channels, module))
                self.inserted[site, choice] = made
                self.add_module(f"{site}={choice.text}".replace(".", "/"), made)
            self._hook(site, module)

    def _hook(self, site: str, module: nn.Module) -> RemovableHandle:
        def attend(_module: nn.Module, _inputs: object, x: Tensor) -> Tensor:
            choice = self.path.get(site)
            return x if choice is None else self.inserted[site, choice](x)

        return module.register_forward_hook(attend)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the path that is set, or in training of a new one."""
        if self.training and torch.is_grad_enabled():
            self.path = self._drawn()
        return self.net(x)

    def _drawn(self) -> dict[str, Choice]:
        path = {}
        for site, choices in self.menu.items():
            number = int(torch.randint(len(choices) + 1, ()))
            if number:
                path[site] = choices[number - 1]
        return path


def _train_paths(net: Supernet, setting: Setting, recipe: Recipe) -> None:
    """Train a supernet in place.

    The engine's fused optimizer wants a gradient for every weight, and a path has few.
    """
    torch.manual_seed(setting.seed)
    net.to(memory_format=torch.channels_last)
    context = setting.context_of(recipe)
    batches = context.data.batches(recipe.batch)
    optimizer = torch.optim.SGD(
        net.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    steps = recipe.epochs * len(batches)
    for step in range(steps):
        epoch, number = divmod(step, len(batches))
        if number == 0:
            batches.load(setting.seed, epoch)
        optimizer.param_groups[0]["lr"] = recipe.lr_at(step, steps)
        optimizer.zero_grad()
        for part in batches.parts(torch.tensor([number]), 1):
            context.data.loss(context.model(net), part).backward()
        optimizer.step()


def _choices(texts: Sequence[str]) -> dict[str, list[Choice]]:
    """The choices that placements have, by site."""
    found: dict[str, dict[Choice, None]] = {}
    for site, choice in itertools.chain(*(Placement.parse(text).choices for text in texts)):
        found.setdefault(site, {})[choice] = None
    return {site: list(choices) for site, choices in found.items()}


def path(setting: Setting, text: str) -> Values:
    """Measure a path of the supernet, with its normalisations' own statistics."""
    net = setting.supernet
    net.path = dict(Placement.parse(text).choices)
    net.train()
    batches = setting.context.data.batches(setting.experiment.recipe.batch)
    batches.load(setting.seed, 0)
    with torch.no_grad():
        for number in range(min(SETTLING_BATCHES, len(batches))):
            for part in batches.parts(torch.tensor([number]), 1):
                setting.context.model(net)(part.inputs)  # type: ignore[attr-defined]
    found = measured(net, setting.experiment.split.validation, setting.context)
    return {"error": found.value, "loss": found.loss}


RUNGS: Mapping[str, Callable[[Setting, str], Values]] = {
    "warm": warm,
    "one epoch": functools.partial(from_scratch, epochs=1),
    "scratch": functools.partial(from_scratch, epochs=2),
    "gates": gates,
    "supernet": path,
}
SHARED: Mapping[str, tuple[str, ...]] = {
    "warm": ("start",),
    "gates": ("start",),
    "supernet": ("start", "supernet"),
}
"""What the placements of a rung share: attributes of `Setting`, computed when asked for."""


def main() -> None:
    """Compute what is not in the table yet."""
    asked = _parser().parse_args()
    dataset, device = locate(asked.data).load(), choose("cpu")
    torch.set_num_threads(1)
    agree(asked.out.with_suffix(".json"), about(dataset, device) | {"images": asked.images})
    done = rows_done(asked.out, COLUMNS, CONDITIONS)
    for seed in asked.seeds:
        setting = _setting(asked, dataset, device, seed)
        for rung in asked.rungs:
            _score_all(asked.out, setting, rung, done)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--space", default="small")
    parser.add_argument("--placements", nargs="+", help="[default: those of --long]")
    parser.add_argument("--long", type=Path, default=LONG)
    parser.add_argument("--images", type=int, default=10_000, help="that train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rungs", nargs="+", choices=RUNGS, default=list(RUNGS))
    parser.add_argument("--out", type=Path, required=True)
    return parser


def _setting(asked: argparse.Namespace, dataset: Any, device: Device, seed: int) -> Setting:
    space = load(asked.space, CIFAR_INPUTS)
    sites, recipe = sites_of(space), load_study("placement", device, {}, []).recipe
    split = held_apart(dataset, asked.images, HELD_OUT)
    wanted = asked.placements or dict.fromkeys(row["placement"] for row in rows_of(asked.long))
    texts = tuple(resolve(text, sites).text for text in wanted)
    experiment = Experiment("classification", asked.space, sites, split, recipe, device, threads=1)
    context = TrainingContext.of(sources.task(), device, recipe.for_size(SIZE), split.fit)
    return Setting(experiment, space, context, texts, seed)


def _score_all(out: Path, setting: Setting, rung: str, done: set[tuple[str, ...]]) -> None:
    """Append the rows of a rung that are missing, after those of what they share."""
    key = (setting.experiment.space, str(setting.seed))
    texts = [text for text in setting.texts if (key[0], rung, text, key[1]) not in done]
    if not texts:
        return
    for name in SHARED.get(rung, ()):
        if name not in vars(setting):
            began = time.process_time()
            getattr(setting, name)
            seconds = time.process_time() - began
            if (key[0], name, ALL, key[1]) not in done:
                _append(out, setting, (name, ALL), {"": 0}, seconds)
    for text in texts:
        began = time.process_time()
        values = RUNGS[rung](setting, text)
        _append(out, setting, (rung, text), values, time.process_time() - began)


def _append(
    out: Path, setting: Setting, which: tuple[str, str], values: Values, seconds: float
) -> None:
    rung, text = which
    space, seed = setting.experiment.space, setting.seed
    for predictor, value in values.items():
        append_row(out, (space, rung, text, seed, predictor, f"{value:.6g}", round(seconds, 2)))


if __name__ == "__main__":
    main()
