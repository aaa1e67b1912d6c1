"""The benchmark of the optimizers says how long each takes, and that one by one is the same."""

import copy
import json

import torch

from bam_search.score.device import choose
from bam_search.score.optimizers import OPTIMIZERS
from benchmarks import optimizers


def test_it_tells_the_time_of_a_step_and_of_each_optimizer() -> None:
    found = optimizers.compare("small", choose("cpu"), batch=4, rounds=1)
    assert found["step"]["ratio"].keys() == set(OPTIMIZERS)
    assert found["optimizer"]["ratio"].keys() == {*OPTIMIZERS, optimizers.ONE_BY_ONE}
    assert found["optimizer"]["ratio"]["sgd"] == 1
    assert all(value > 0 for value in found["optimizer"]["ms"].values())
    assert json.dumps(found)


def test_one_by_one_is_the_same_step() -> None:
    step = optimizers._step("small", "muon", choose("cpu"), 4)
    step.rate.fill_(0.1)
    begun = copy.deepcopy(step.model.state_dict())
    gradients = [parameter.grad for parameter in step.model.parameters()]
    step.optimizer.parts["muon"].state.clear()
    step.optimizer.parts["sgd"].state.clear()
    step.optimizer.step()
    expected = copy.deepcopy(step.model.state_dict())
    step.model.load_state_dict(begun)
    step.optimizer.parts["sgd"].state.clear()
    for parameter, gradient in zip(step.model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizers._one_by_one(step)()
    for name, value in step.model.state_dict().items():
        assert torch.allclose(value, expected[name], atol=2e-3), name
