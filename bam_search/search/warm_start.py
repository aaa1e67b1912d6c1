"""The backbone that all candidates of a study start from, trained once and kept in its folder."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bam_search.errors import RunError, last_line
from bam_search.files import atomic_write
from bam_search.model.start import Start
from bam_search.score.checkpoint import UNREADABLE
from bam_search.score.evaluate import Job
from bam_search.search.executors import Submit
from bam_search.search.study import Study

BACKBONE = "backbone.pt"
"""The file, in the study's folder."""


@dataclass(frozen=True)
class Backbone:
    """The weights of a trained backbone, as `Start.weights`, and the seconds of its training."""

    weights: bytes
    seconds: float

    @classmethod
    def read(cls, folder: Path) -> "Backbone | None":
        """That in the folder; None where there is none, or its file is damaged."""
        try:
            return cls(**torch.load(folder / BACKBONE, weights_only=True))
        except UNREADABLE:
            return None

    @classmethod
    def trained(cls, study: Study, submit: Submit) -> "Backbone":
        """Train it for the study's `backbone_epochs`. Raises RunError if that fails."""
        job = Job("none", study.seed, study.backbone_epochs, keep_weights=True)
        result = submit(job).result()
        if result.score is None:
            why = last_line(result.failure)
            raise RunError(f"the backbone that candidates start from cannot be trained: {why}")
        return cls(result.score.weights, result.score.seconds)

    def write(self, folder: Path) -> None:
        """Keep it in the folder."""
        with atomic_write(folder / BACKBONE) as file:
            torch.save({"weights": self.weights, "seconds": self.seconds}, file)

    def start(self, before: Start) -> Start:
        """What candidates start from, where the backbone's own training started from `before`."""
        return replace(before, weights=self.weights)
