"""Networks that return more in training than in evaluation train on their main logits."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bam_search import UserError
from bam_search.model.find_sites import find_sites
from bam_search.running.prepare import check_outputs
from bam_search.score.context import TrainingContext
from bam_search.score.device import choose
from bam_search.score.latency import LatencySetting, training_memory
from bam_search.score.train import train
from bam_search.space.search_space import SearchSpace
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.images import Images
from bam_search.tasks.outputs import OneTensor
from bam_search.tasks.recipe import Recipe

CPU = choose("cpu")
RECIPE = Recipe(epochs=1, batch=20, precision="fp32")
Form = Callable[[Tensor, Tensor], object]


class Pair(NamedTuple):
    logits: Tensor
    aux: Tensor


@dataclass
class Output:
    hidden: Tensor
    logits: Tensor


FORMS: dict[str, Form] = {
    "named tuple": Pair,
    "dataclass": lambda y, x: Output(x, y),
    "mapping": lambda y, x: OrderedDict(aux=x, logits=y),
    "list": lambda y, x: [y, x],
    "nested": lambda y, x: (y, {"aux": [x]}),
}


class Auxiliary(nn.Module):
    """A second head runs in training only."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.one, self.two = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 8, 3, 2)
        self.head, self.extra = nn.Linear(8, 100), nn.Linear(4, 100)

    def forward(self, x: Tensor) -> object:
        x = self.one(x)
        y = self.head(self.two(x).mean((2, 3)))
        return self.form(y, self.extra(x.mean((2, 3)))) if self.training else y


def trained(form: Form) -> dict[str, Tensor]:
    """The weights after an epoch on twenty images."""
    torch.manual_seed(0)
    drawn = np.random.default_rng(0)
    images = Images(drawn.integers(0, 256, (20, 32, 32, 3), np.uint8), drawn.integers(0, 100, 20))
    net = Auxiliary(form)
    train(net, TrainingContext.of(sources.task(), CPU, RECIPE, images), RECIPE, 0)
    return net.state_dict()


@pytest.mark.parametrize("form", FORMS)
def test_training_goes_by_the_main_logits(form: str) -> None:
    found, plain = trained(FORMS[form]), trained(lambda y, _: y)
    for name, value in plain.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("form", FORMS)
def test_the_memory_of_a_training_step_is_measured(form: str) -> None:
    setting = LatencySetting(CPU, (3, 32, 32), batch=2, bf16=False)
    assert training_memory(Auxiliary(FORMS[form]), setting, RECIPE) > 0


@pytest.mark.parametrize("form", FORMS)
def test_a_head_of_training_is_no_site_and_the_study_takes_the_network(form: str) -> None:
    net = Auxiliary(FORMS[form])
    sites = find_sites(net, (3, 32, 32))
    assert sites.names == ("one", "two")
    assert sites.refused["extra"] == "is not called in a forward pass"
    check_outputs(net, SearchSpace("mine", Auxiliary, (3, 32, 32), 100), OneTensor((100,)))
    assert not net.training


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda y, _: {"scores": y[:, :7]}, r"returns \(2, 7\) for 2 samples in training"),
        (lambda y, x: (x[:, :, None], y), r"returns \(2, 100, 1\) for 2 samples in training"),
        (lambda *_: {"loss": 1.0}, "returns no tensor for 2 samples in training"),
        (lambda *_: 1 / 0, "cannot run in training on 2 samples: ZeroDivisionError"),
    ],
)
def test_a_network_without_main_logits_is_refused_before_training(form: Form, message: str) -> None:
    space = SearchSpace("mine", Auxiliary, (3, 32, 32), 100)
    with pytest.raises(UserError, match=message):
        check_outputs(Auxiliary(form), space, OneTensor((100,)))
