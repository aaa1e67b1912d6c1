"""Compile each block of a network by itself.

A new placement of blocks that were compiled before needs no further compilation. Compiling a whole
network takes longer than a short training, and each placement is another network.
https://docs.pytorch.org/tutorials/recipes/regional_compilation.html
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._dynamo import config
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from bam_search.errors import first_line
from bam_search.model.insert import attended

GRAPHS = 10_000
"""Dynamo's recompile limit: the most graphs that all placements may need in one process.

Dynamo's default is 8. More than the limit is an error here (`_settings`), never eager execution.
"""


class NotCompiled(Exception):
    """A block cannot be compiled whole."""


@contextlib.contextmanager
def compiled(
    model: nn.Module, blocks: Sequence[str], backend: str | Callable[..., Any] = "inductor"
) -> Iterator[None]:
    """Within the context, run the named blocks and the attention outside them compiled.

    Only in training mode. In eval mode they run uncompiled, because each batch size would need
    another graph. Raises NotCompiled if a block cannot be compiled as one graph.
    """
    modules = [model.get_submodule(name) for name in _compiled_names(model, blocks)]
    with quiet(), _settings():
        for module in modules:
            fast = torch.compile(module._call_impl, backend=backend, fullgraph=True, dynamic=False)
            module._compiled_call_impl = partial(_while_training, module, fast)
        try:
            yield
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            raise NotCompiled(
                f"a block cannot be compiled: {first_line(error)} "
                "(recipe.compile = false trains the model)"
            ) from error
        finally:
            for module in modules:
                module._compiled_call_impl = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the context two warnings of the compiler are silent.

    The compiler causes the first one itself; the second is advice that would change the arithmetic.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="The .grad attribute of a Tensor that is not a leaf"
        )
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
        yield


def _settings() -> contextlib.AbstractContextManager[object]:
    return config.patch(
        recompile_limit=GRAPHS,
        accumulated_recompile_limit=GRAPHS,
        fail_on_recompile_limit_hit=True,
        # Attention runs in a forward hook, and by default Dynamo does not guard on hooks: a block
        # that was compiled without attention would be reused where attention is attached.
        skip_nnmodule_hook_guards=False,
    )


def _while_training(module: nn.Module, fast: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    call = fast if module.training else module._call_impl
    return call(*args, **kwargs)


def _compiled_names(model: nn.Module, blocks: Sequence[str]) -> list[str]:
    """The blocks, and the attention modules that lie in none of them."""
    attention = attended(model).values()
    in_blocks = tuple(f"{block}." for block in blocks)
    return [*blocks, *(name for name in attention if not name.startswith(in_blocks))]
