"""Speeds of devices that are not at hand: those that were measured are met, others are in order."""

import pytest

from bam_search.errors import UserError
from bam_search.running.devices import KNOWN, DeviceSpeed
from bam_search.score.device import Device

# Of CIFAR's ResNet18 and ResNet50 and the small network: outputs of layers, and MACs.
RESNET18, RESNET50, SMALL = (614_500, 555_468_800), (3_260_516, 1_222_516_736), (43_108, 12_292_608)


@pytest.mark.parametrize(
    ("network", "batch", "measured"),
    [
        (RESNET18, 256, 52_160),
        (RESNET50, 256, 15_693),
        (RESNET50, 128, 13_781),
        (SMALL, 256, 277_025),
        (SMALL, 128, 152_669),
    ],
)
def test_the_h200_is_as_fast_as_it_was_measured(
    network: tuple[int, int], batch: int, measured: float
) -> None:
    images_per_s = 1 / KNOWN["h200"].seconds_per_image(*network, batch)
    assert images_per_s == pytest.approx(measured, rel=0.1)


def test_only_what_was_measured_says_so_and_is_the_fastest() -> None:
    speeds = {name: 1 / device.seconds_per_image(*RESNET50, 256) for name, device in KNOWN.items()}
    assert max(speeds, key=speeds.__getitem__) == "h200"
    assert [name for name, device in KNOWN.items() if device.measured] == ["h200"]


@pytest.mark.parametrize("text", ["RTX 4090", "rtx-4090", "rtx4090"])
def test_a_device_is_found_as_people_write_it(text: str) -> None:
    device = DeviceSpeed.of(text).device("auto")
    assert isinstance(device, Device)
    assert (device.type, device.name) == ("cuda", text)


def test_a_speed_in_images_is_of_the_device_that_is_wanted() -> None:
    speed = DeviceSpeed.of("1,400")
    assert speed.images_per_s == 1400
    assert speed.device("cpu") == "cpu"
    gpu = speed.device("cuda")  # which need not be here
    assert isinstance(gpu, Device)
    assert gpu.variant == "gpu"


def test_a_gpu_is_not_planned_for_where_a_cpu_is_wanted() -> None:
    with pytest.raises(UserError, match="--device-speed h100 is a GPU, and --device cpu"):
        DeviceSpeed.of("h100").device("cpu")


@pytest.mark.parametrize("text", ["rtx4091x", "0", "-3", "nan", ""])
def test_an_unknown_device_is_a_sentence_with_the_nearest(text: str) -> None:
    with pytest.raises(UserError, match="is no device that is known"):
        DeviceSpeed.of(text)
