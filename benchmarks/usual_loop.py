"""The training loop that users write today, with which `benchmarks/engine.py` compares.

It is written to be fair, not to be slow.

A `DataLoader` with as many workers as serve it best, torchvision's transforms on PIL images, fp32
(TF32 on a GPU), channels first, batches of 128, SGD with Nesterov momentum and a learning rate set
each step, `loss.item()` each step for the running mean, evaluation after each epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bam_search.tasks.classification.images import Images
from bam_search.tasks.recipe import Recipe

BATCH = 128
_NORMALISED = [
    transforms.ToTensor(),
    transforms.Normalize((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
]
"""By CIFAR-100's mean and standard deviation, which such loops have as constants."""


@dataclass(frozen=True, eq=False)
class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's data sets give them: through PIL, transformed one by one."""

    images: Images
    transform: transforms.Compose

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images.x[index])), int(self.images.y[index])


def train(
    model: nn.Module, images: Images, held_out: Images, recipe: Recipe, device: str, workers: int
) -> float:
    """Train `model` in place on `images`; return the error on `held_out`, in percent.

    The error is measured after each epoch; the last one is returned.
    """
    evaluation = _loader(held_out, _NORMALISED, workers, training=False)
    error = 100.0
    for _ in epochs(model, images, recipe, device, workers):
        error = _error(model, evaluation, device)
    return error


def epochs(
    model: nn.Module, images: Images, recipe: Recipe, device: str, workers: int
) -> Iterator[int]:
    """Train `model` in place, an epoch at a time."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model.to(device)
    loader = _loader(images, _augmented(recipe), workers, training=True)
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    steps = recipe.epochs * len(loader)
    for epoch in range(recipe.epochs):
        model.train()
        running = 0.0
        for step, (pixels, labels) in enumerate(loader):
            optimizer.param_groups[0]["lr"] = recipe.lr_at(epoch * len(loader) + step, steps)
            loss = functional.cross_entropy(
                model(pixels.to(device)), labels.to(device), label_smoothing=recipe.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()
        yield epoch


def _error(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, int]], device: str) -> float:
    model.eval()
    wrong = seen = 0
    with torch.no_grad():
        for pixels, labels in loader:
            wrong += (model(pixels.to(device)).argmax(1) != labels.to(device)).sum().item()
            seen += len(labels)
    return 100 * wrong / seen


def _loader(
    images: Images, transform: list[object], workers: int, training: bool
) -> DataLoader[tuple[torch.Tensor, int]]:
    return DataLoader(
        Pictures(images, transforms.Compose(transform)),
        batch_size=BATCH,
        shuffle=training,
        drop_last=training,
        num_workers=workers,
        # As in a program of its own. A process that was spawned would spawn its workers too, which
        # takes them a minute where importing torch is slow.
        multiprocessing_context="fork" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _augmented(recipe: Recipe) -> list[object]:
    crop = [transforms.RandomCrop(32, padding=4)] if recipe.augment == "crop-flip" else []
    flip = [] if recipe.augment == "none" else [transforms.RandomHorizontalFlip()]
    return [*crop, *flip, *_NORMALISED]
