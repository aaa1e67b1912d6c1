"""The convolutions of a step: all are measured, and the bound adds up."""

import pytest

from bam_search.model.build import build, sites_of
from bam_search.model.load import load
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS
from benchmarks.convolutions import Convolution, convolutions, figures


def test_every_convolution_is_measured_and_its_operations_are_those_of_its_shape() -> None:
    space = load("small", CIFAR_INPUTS)
    found = convolutions(build(space, sites_of(space), "none", 0), batch=2, rounds=1)
    names = [one.name for one in found]
    assert names[0] == "conv1"
    assert len(names) == len(set(names)) == 9
    first = found[0]
    assert (first.shape, first.inputs_ms) == ((2, 3, 32, 32), 0)
    assert first.giga * 1e9 == pytest.approx(2 * (2 * 32 * 16 * 16) * 27)
    assert all(one.forward_ms > 0 and one.weights_ms > 0 for one in found)


def test_the_bound_is_all_else_and_the_convolutions_at_the_machines_rate() -> None:
    one = Convolution("a", (1,), 1.0, 10.0, 10.0, 20.0)
    told = dict(figures([one, one], whole_ms=100.0, rate=120.0))
    assert told["convolutions_ms"] == 80
    assert told["convolutions_alone_ms"] == pytest.approx(50)
    assert told["least_step_ms"] == pytest.approx(70)
    assert told["convolutions_gflops"] == pytest.approx(75)
