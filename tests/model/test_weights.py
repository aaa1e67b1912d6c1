"""Weights load in every form in which people save them, or a sentence says why they do not."""

import copy
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bam_search.errors import UserError
from bam_search.model.weights import fit_weights, load_weights

HEAD = ("fc.weight", "fc.bias")


class Net(nn.Module):
    """A backbone and a head of two layers, of which the last depends on the classes."""

    def __init__(self, classes: int = 5, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
        self.fc = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.blocks(self.bn(self.conv(x)))
        return self.fc(maps.mean((2, 3)))


Weights = dict[str, Any]
SAVED = Net(seed=1)
SAVED.bn.running_mean = torch.arange(4.0)
PLAIN: Weights = SAVED.state_dict()


def prefixed(prefix: str, weights: Weights = PLAIN) -> Weights:
    return {prefix + key: value for key, value in weights.items()}


def without(prefix: str, weights: Weights = PLAIN) -> Weights:
    return {key: value for key, value in weights.items() if not key.startswith(prefix)}


def ema() -> Weights:
    averaged = AveragedModel(SAVED)
    averaged.update_parameters(SAVED)
    return dict(averaged.state_dict())


def cast(dtype: torch.dtype) -> Weights:
    return dict(copy.deepcopy(SAVED).to(dtype).state_dict())


def compiled_blocks() -> Weights:
    net = copy.deepcopy(SAVED)
    net.blocks = torch.compile(net.blocks)  # type: ignore[assignment]
    return dict(net.state_dict())


FORMS: dict[str, Callable[[], Any]] = {
    "bare": lambda: PLAIN,
    "state_dict": lambda: {"epoch": 3, "state_dict": PLAIN, "optimizer": {"state": {0: {"m": 1}}}},
    "model": lambda: {"model": PLAIN, "args": {"lr": 0.1}},
    "model_state_dict": lambda: {"model_state_dict": PLAIN, "best": torch.ones(1)},
    "another name": lambda: {"generator": PLAIN},
    "nested twice": lambda: {"ema": {"model": PLAIN}},
    "beside its average": lambda: {"model_ema": Net(seed=3).state_dict(), "model": PLAIN},
    "only the average": lambda: {"model_ema": ema()},
    "module.": lambda: prefixed("module."),
    "_orig_mod.": lambda: prefixed("_orig_mod."),
    "module._orig_mod.": lambda: {"model": prefixed("module._orig_mod.")},
    "_orig_mod.module.": lambda: prefixed("_orig_mod.module."),
    "compiled blocks": compiled_blocks,
    "AveragedModel": ema,
    "a part of a larger model": lambda: prefixed("backbone.") | {"neck.weight": torch.ones(1)},
    "half": lambda: {"state_dict": cast(torch.half)},
    "bfloat16": lambda: cast(torch.bfloat16),
    "double": lambda: cast(torch.double),
    "before num_batches_tracked": lambda: {k: v for k, v in PLAIN.items() if "tracked" not in k},
    "parameters": lambda: dict(SAVED.named_parameters()) | dict(SAVED.named_buffers()),
    "on a view": lambda: {k: torch.stack([v, v])[1] for k, v in PLAIN.items()},
}  # fmt: skip


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_loaded(tmp_path: Path, form: str) -> None:
    net = Net()
    fit = load_weights(net, saved(tmp_path / "weights.pt", FORMS[form]()), HEAD)
    assert fit.new == ()
    for key, value in net.state_dict().items():
        assert value.dtype == PLAIN[key].dtype
        torch.testing.assert_close(value, PLAIN[key], rtol=1e-2, atol=1e-2)
    if form not in ("half", "bfloat16"):
        assert fit.digest == fit_weights(Net(), saved(tmp_path / "same.pt", PLAIN)).digest


def test_a_model_whose_own_keys_look_wrapped_is_loaded(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Net()

    net = Wrapper()
    for weights in (prefixed("module."), prefixed("module.module."), prefixed("model.module.")):
        net.load_state_dict(Wrapper().state_dict())
        load_weights(net, saved(tmp_path / "weights.pt", weights))
        assert torch.equal(net.module.conv.weight, SAVED.conv.weight)


@pytest.mark.parametrize(
    "weights",
    [
        without("fc."),
        prefixed("module.", without("fc.")),
        {"state_dict": Net(7, seed=2).state_dict()},
        without("fc.bias", Net(7, seed=2).state_dict()),
        without("fc.") | {"fc.0.weight": torch.ones(3, 4), "fc.2.weight": torch.ones(2, 3)},
    ],
    ids=["none", "none, wrapped", "other classes", "other classes without bias", "projection"],
)
def test_a_head_that_is_not_there_stays_as_it_is(tmp_path: Path, weights: Weights) -> None:
    net, drawn = Net(), Net()
    path = saved(tmp_path / "weights.pt", weights)
    assert load_weights(net, path, HEAD).new == HEAD
    assert torch.equal(net.fc.weight, drawn.fc.weight)
    assert not torch.equal(net.conv.weight, drawn.conv.weight)
    with pytest.raises(UserError, match=r"fc\.(weight|bias) is"):  # of a model without a head
        load_weights(net, path)


def test_modules_around_a_head_may_be_missing_with_it(tmp_path: Path) -> None:
    """Such as all of VGG's `classifier`, of which only the last layer knows the classes."""
    net = Net()
    net.fc = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 5))
    head = ("fc.2.weight", "fc.2.bias")
    fit = load_weights(net, saved(tmp_path / "weights.pt", without("fc.")), head)
    assert set(fit.new) == {
        k for k in net.state_dict() if k.startswith("fc.") and "tracked" not in k
    }
    partly = without("fc.2.", without("fc.0.bias", net.state_dict()))
    with pytest.raises(UserError, match=r"fc\.0\.bias is missing\n"):
        load_weights(net, saved(tmp_path / "weights.pt", partly), head)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("bn.weight"), "bn.weight is missing\n"),
        (without("bn."), "bn.weight is missing, as are 3 more\n"),
        (PLAIN | {"extra": torch.ones(1)}, "extra is unexpected\n"),
        (without("bn.bias") | {"a.b": torch.ones(1)}, "bn.bias is missing, and a.b is unexpected"),
        (PLAIN | {"conv.weight": torch.ones(4, 1, 3, 3)}, r"conv.weight is \(4, 1, 3, 3\) float"),
        (PLAIN | {"conv.bias": torch.ones(4, dtype=torch.int8)}, r"conv.bias is \(4,\) int8, not"),
        (prefixed("module.", without("bn.")), "bn.weight is missing"),
        (prefixed("module.", without("conv.")), "conv.weight is missing, as is another\n"),
        ({"state_dict": without("bn.weight"), "loss": torch.ones(1)}, "bn.weight is missing"),
        ({k: v for k, v in PLAIN.items() if k == "conv.weight"}, "conv.bias is missing, as are"),
        ({"a": 1}, "it holds no state dict"),
        ([torch.ones(1)], "it holds no state dict"),
        ({}, "it holds no state dict"),
        (torch.ones(3), "it holds no state dict"),
    ],
)  # fmt: skip
def test_another_models_weights_are_one_sentence(
    tmp_path: Path, content: Any, message: str
) -> None:
    net = Net()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(UserError, match=f"does not fit the model: {message}") as caught:
        load_weights(net, saved(tmp_path / "weights.pt", content), HEAD)
    assert caught.value.hint
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    "content", [SAVED, {"model": SAVED}, {"state_dict": PLAIN, "args": Namespace(lr=1)}, Path]
)
def test_what_needs_code_to_be_read_is_one_sentence(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match="reading these could run any code"):
        load_weights(Net(), saved(tmp_path / "weights.pt", content))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_one_sentence(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Net()), tmp_path / "weights.pt")
    with pytest.raises(UserError, match="reading these could run any code"):
        load_weights(Net(), tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\0" * 99])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_file_of_weights_is_one_sentence(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is no file of weights|it holds no state dict"):
        load_weights(Net(), path)
    with pytest.raises(UserError, match="there is no file"):
        load_weights(Net(), tmp_path / "missing.pt")


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path, net = tmp_path / "weights.safetensors", Net()
    safetensors.save_file(prefixed("model.", without("fc.")), path)
    assert load_weights(net, path, HEAD).new == HEAD
    assert torch.equal(net.bn.running_mean, torch.arange(4.0))
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(UserError, match="needs safetensors, which is not installed") as caught:
        load_weights(Net(), path)
    assert caught.value.hint == "pip install safetensors"
