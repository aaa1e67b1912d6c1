"""A training in progress, in a file: one that is cut off goes on from there, and ends as it would
have, bit for bit on a CPU.

Epochs are kept that took long enough to be worth it, and only until the training ends. Where the
file cannot be written or read the training is merely not shortened: a study's own books are its
store.
"""

import contextlib
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bam_search.files import atomic_write, beginning
from bam_search.score.train import Epoch, TrainingState

MIN_SECONDS = 60.0
"""Seconds of training that are worth a file."""


@dataclass(eq=False)
class Checkpoint:
    """The file of one training, written when the last one is `every` seconds old."""

    path: Path
    every: float = MIN_SECONDS

    def __post_init__(self) -> None:
        self._last = time.monotonic()

    def load(self) -> TrainingState | None:
        """What was kept, None if there is nothing (or a machine that died left half of it)."""
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            return TrainingState(
                tuple(Epoch(*epoch) for epoch in kept["epochs"]),
                kept["seconds"],
                kept["model"],
                kept["optimizer"],
            )
        except (
            OSError,
            RuntimeError,
            EOFError,
            ValueError,
            KeyError,
            TypeError,
            pickle.UnpicklingError,
        ):
            return None

    def save(self, saved: TrainingState) -> None:
        """Keep a training, if it is time."""
        if time.monotonic() - self._last < self.every:
            return
        table = {
            "epochs": [(e.loss, e.error) for e in saved.epochs],
            "seconds": saved.seconds,
            "model": saved.model,
            "optimizer": saved.optimizer,
        }
        with contextlib.suppress(OSError, RuntimeError), atomic_write(self.path) as file:
            torch.save(table, file)
        self._last = time.monotonic()

    def drop(self) -> None:
        """The training ended: nothing is kept any more."""
        for path in (self.path, *self.path.parent.glob(f"{beginning(self.path)}*")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
