"""A training in progress, in a file.

A training that is cut off goes on from there and ends as it would have, bit for bit on a CPU. Only
epochs that took long enough to be worth it are saved, and the file is deleted when the training
ends. Where the file cannot be written or read the training is merely not shortened: the results of
a study are in its store.
"""

import contextlib
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bam_search.files import atomic_write, beginning
from bam_search.score.train import EpochResult, TrainingState

MIN_SECONDS = 60.0
"""Seconds of training that are worth a file."""
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    pickle.UnpicklingError,
)
"""What reading a missing, half-written or foreign file can raise."""


@dataclass(eq=False)
class Checkpoint:
    """The file of one training, written when the last one is `every` seconds old."""

    path: Path
    every: float = MIN_SECONDS

    def __post_init__(self) -> None:
        self._last = time.monotonic()

    def load(self) -> TrainingState | None:
        """The saved state; None without a file, or where a machine that died left half of it."""
        try:
            table = torch.load(self.path, map_location="cpu", weights_only=True)
            epochs = tuple(EpochResult(*epoch) for epoch in table["epochs"])
            return TrainingState(epochs, table["seconds"], table["model"], table["optimizer"])
        except UNREADABLE:
            return None

    def save(self, saved: TrainingState) -> None:
        """Write the state, if the last one is `every` seconds old."""
        if time.monotonic() - self._last < self.every:
            return
        table = {
            "epochs": [(e.loss, e.value) for e in saved.epochs],
            "seconds": saved.seconds,
            "model": saved.model,
            "optimizer": saved.optimizer,
        }
        with contextlib.suppress(OSError, RuntimeError), atomic_write(self.path) as file:
            torch.save(table, file)
        self._last = time.monotonic()

    def drop(self) -> None:
        """Delete the file, and what is left of half-written ones: the training ended."""
        for path in (self.path, *self.path.parent.glob(f"{beginning(self.path)}*")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
