"""What a backbone must return for a task: it is checked before anything is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from bam_search.model.arguments import main_tensor

Model = Callable[..., Any]
"""A model as a task calls it, in the precision of the training: inputs -> what the model returns.

A detector in training gets the targets too. Under bfloat16 a model returns bfloat16; a loss begins
with `.float()`.
"""


class Outputs(Protocol):
    """What a backbone must return, in eval mode and in training."""

    def returned(self, model: Model, inputs: Tensor, training: bool) -> Any:
        """What `model` returns for `inputs`, called as the task calls it in that mode."""
        ...

    def fits(self, returned: Any, samples: int, training: bool) -> bool:
        """Whether the task can use that."""
        ...

    def text(self, samples: int, training: bool) -> str:
        """What the task can use, in words."""
        ...


@dataclass(frozen=True)
class OneTensor:
    """One tensor (samples, *shape): `OneTensor((100,))` are the logits of 100 classes.

    In training a model may add others to it, as networks with auxiliary heads do.
    """

    shape: tuple[int, ...]

    def returned(self, model: Model, inputs: Tensor, training: bool) -> Any:
        """What the model returns; in training without what is added to the main tensor."""
        output = model(inputs)
        return main_tensor(output) if training else output

    def fits(self, returned: Any, samples: int, training: bool) -> bool:
        """Whether it is that tensor."""
        del training
        return isinstance(returned, Tensor) and returned.shape == (samples, *self.shape)

    def text(self, samples: int, training: bool) -> str:
        """'one tensor (2, 100)'."""
        del training
        return f"one tensor {(samples, *self.shape)}"
