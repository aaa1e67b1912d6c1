"""What the package offers by its own name is there, and the example of each runs."""

import doctest
from pathlib import Path

import numpy as np
import pytest

import bam_search
from bam_search.model.attention import registry
from bam_search.tasks.classification.synthetic import generate_images


@pytest.mark.parametrize("name", bam_search.__all__)
def test_each_public_name_is_what_it_says(name: str) -> None:
    assert getattr(bam_search, name).__name__ == name


@pytest.mark.parametrize("name", bam_search.__all__)
def test_the_example_of_each_public_name_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x_train, y_train, x_test, y_test = generate_images(500, 200)
    np.savez("cifar100.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    text = getattr(bam_search, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    report: list[str] = []
    found = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert found.attempted > 0
    assert found.failed == 0, "".join(report)


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = bam_search.nothing
