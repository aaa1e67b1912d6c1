"""A record: all that is known of one candidate, flat, as it stands in records.csv. No torch, no optuna."""

from dataclasses import asdict, dataclass, fields
from typing import Any

REFERENCE = "reference"
SEARCH = "search"


@dataclass(frozen=True)
class Record:
    """One candidate. Errors and overheads are in percent, counts are integers, seconds are wall time; None is "not known".

    `origin` is "reference" (pinned by the study, `name` says which) or "search". `val_error` is on `val_images` images that were held
    out of training; `test_error` is of a second training, with the fresh seed `test_seed` and all training images, measured once.
    `macs_conv_fc` is the published convention, `macs` the full count, `activations` what convolutions and linear layers put out (see
    `bam_search.score.cost`). `micro_batches` is 2 where the device's memory was too small for whole batches (`test_micro_batches`: in
    the second training). `failure` is a traceback, or what went wrong.
    """

    number: int
    origin: str
    name: str
    placement: str
    id: str
    data: str
    seed: int
    epochs: int
    params: int
    macs_conv_fc: int
    macs: int
    activations: int
    params_overhead: float
    macs_conv_fc_overhead: float
    macs_overhead: float
    activations_overhead: float
    by_operator: dict[str, int]
    uncounted: dict[str, int]
    failure: str = ""
    val_error: float | None = None
    val_images: int | None = None
    val_errors: tuple[float, ...] = ()
    train_losses: tuple[float, ...] = ()
    seconds: float | None = None
    micro_batches: int | None = None
    test_error: float | None = None
    test_images: int | None = None
    test_seed: int | None = None
    test_seconds: float | None = None
    test_micro_batches: int | None = None
    test_failure: str = ""

    @property
    def complete(self) -> bool:
        """Whether the candidate has a validation error."""
        return self.val_error is not None

    @property
    def tested(self) -> bool:
        """Whether its second training, for the test set, has been run."""
        return self.test_error is not None or bool(self.test_failure)

    @property
    def label(self) -> str:
        """The name of a reference, the placement of any other."""
        return self.name or self.placement

    def objective(self, key: str) -> float:
        """The value to minimise that OBJECTIVES calls `key`; of a complete record only."""
        value = getattr(self, OBJECTIVES[key])
        assert isinstance(value, (int, float))
        return float(value)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "Record":
        """The inverse of `to_dict`, also after JSON has made lists of the tuples."""
        values: dict[str, Any] = {f.name: tuple(v) if isinstance(v := table[f.name], list) else v for f in fields(cls) if f.name in table}
        return cls(**values)


OBJECTIVES = {
    "error": "val_error",
    "params_overhead": "params_overhead",
    "macs_conv_fc_overhead": "macs_conv_fc_overhead",
    "macs_overhead": "macs_overhead",
    "activations_overhead": "activations_overhead",
}
"""What a study may minimise, and the record's field it is."""


def standard_error(error: float, images: int) -> float:
    """The binomial standard error, in points, of an error in percent measured on `images` images: what the images alone leave open.

    It says nothing of the spread between training seeds, which comes on top.
    """
    share = error / 100
    return 100 * float((share * (1 - share) / images) ** 0.5)
