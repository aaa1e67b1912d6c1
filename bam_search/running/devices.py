"""How fast devices train that are not at hand: estimates, to plan a study on another machine.

A training step moves the activations through memory some times, multiplies, and starts kernels.
What a convolution or linear layer puts out is written and read 43 bytes' worth (bfloat16, batch
normalisation, ReLU and their gradients; counted for ResNet18 and ResNet50), each MAC is 6
operations, forward and backward. The rates that are reached were fitted to the speeds measured on
an H200 (ResNet18 52,160 and ResNet50 15,693 images/s at a batch of 256, the small network 277,025;
benchmarks/results/gpu/). All other devices are estimates from their makers' bandwidth and tensor
throughput, of which they are taken to reach the same share of bandwidth, and half of the latter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bam_search.errors import UserError, nearest
from bam_search.running.forecast import Calibration
from bam_search.running.prepare import ResolvedRun
from bam_search.score.device import Device
from bam_search.score.estimate import Speed

BYTES_PER_ACTIVATION = 43
OPERATIONS_PER_MAC = 6
STEP = 0.75e-3
"""Seconds of a step beside its work: what the smallest network takes on an H200."""
WITH_ATTENTION = {"cuda": 2.1, "cpu": 1.6}
"""How much longer BAM in every block takes than the backbone alone.

Measured: ResNet18 on an H200, `small` on two CPU cores.
"""
START = 1.5
"""Seconds before a training on a GPU is at full speed (measured on an H200: 0.6 to 1.7)."""
PROCESS = 10.0
"""Seconds that a process takes to start on a GPU."""


@dataclass(frozen=True)
class KnownDevice:
    """A GPU, with what trainings reach of it: terabytes and tera-operations a second."""

    bandwidth: float
    operations: float
    measured: bool = False

    def seconds_per_image(self, activations: int, macs: int, batch: int) -> float:
        """Seconds to train on one image in batches of `batch`."""
        moved = BYTES_PER_ACTIVATION * activations / (self.bandwidth * 1e12)
        multiplied = OPERATIONS_PER_MAC * macs / (self.operations * 1e12)
        return moved + multiplied + STEP / batch


KNOWN: Mapping[str, KnownDevice] = {
    "h200": KnownDevice(3.3, 392, measured=True),
    "h100": KnownDevice(2.3, 392),
    "a100": KnownDevice(1.4, 156),
    "l40s": KnownDevice(0.6, 180),
    "l4": KnownDevice(0.2, 60),
    "a10": KnownDevice(0.41, 62),
    "rtx5090": KnownDevice(1.2, 105),
    "rtx4090": KnownDevice(0.7, 83),
    "rtx3090": KnownDevice(0.64, 36),
}
"""By name; `measured` says that the speed of such a device was measured, not estimated."""


@dataclass(frozen=True)
class DeviceSpeed:
    """What --device-speed says: a known GPU, or images a second of the network without attention.

    One of the two is set.
    """

    text: str
    known: KnownDevice | None = None
    images_per_s: float = 0.0

    @classmethod
    def of(cls, text: str) -> "DeviceSpeed":
        """The speed that the text names. Raises UserError."""
        name = text.lower().replace(" ", "").replace("-", "")
        if name in KNOWN:
            return cls(text, KNOWN[name])
        try:
            images_per_s = float(text.replace(",", ""))
        except ValueError:
            images_per_s = 0.0
        if not 0 < images_per_s < 1e9:
            hint = f"{nearest(name, KNOWN)}; or images a second, such as 1400"
            raise UserError(f"--device-speed {text!r} is no device that is known", hint)
        return cls(text, None, images_per_s)

    def device(self, wanted: str | Device) -> Device | str:
        """The device of the plan: a GPU that is named, else what was wanted.

        --device cuda need not be here: the plan is for another machine. Raises UserError for a GPU
        where a CPU was wanted.
        """
        if self.known and wanted == "cpu":
            raise UserError(
                f"--device-speed {self.text} is a GPU, and --device cpu asks for a CPU",
                "leave one of the two out, or give images a second",
            )
        if self.known:
            return Device("cuda", self.text, "--device-speed names it", bf16=True)
        if wanted == "cuda":
            return Device("cuda", "a GPU", "--device cuda asks for it", bf16=True)
        return wanted

    def calibration(self, ready: ResolvedRun, at_once: int) -> Calibration:
        """How fast trainings of a study run at this speed, `at_once` at a time."""
        base = ready.costs.base
        batch = ready.study.recipe.batch
        if self.known:
            bare = self.known.seconds_per_image(base.activations, base.macs_conv_fc, batch)
            kind = "that fits measurements" if self.known.measured else "that is estimated"
            source = f"{kind} for {self.text}"
        else:
            # Trainings at once share what the device trains in a second.
            bare, source = at_once / self.images_per_s, f"of {self.text} images a second"
        is_gpu = ready.device.type == "cuda"
        longest = WITH_ATTENTION[ready.device.type]
        speeds = tuple(Speed(START * is_gpu, bare * times) for times in (1.0, longest))
        return Calibration(speeds, PROCESS * is_gpu, at_once, source)
