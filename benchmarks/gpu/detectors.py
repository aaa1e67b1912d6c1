"""Images a second of detectors in training, at the size that a study of detection chooses."""

from functools import partial
from typing import Any

from bam_search.model.build import sites_of
from bam_search.model.load import Inputs, load
from bam_search.score.device import choose
from bam_search.score.estimate import Probe, measure
from bam_search.tasks.recipe import Recipe
from benchmarks.gpu.parts import Part, Work

NETS = ("fcos_resnet50_gn", "fasterrcnn_resnet50_gn")
COCO = Inputs((3, 420, 560), 91)
TINY_NET, TINY = "fcos_small", Inputs((3, 64, 96), 4)
RECIPE = Recipe(optimizer="adamw", batch=16, lr=5e-4, cuda_graph=False)
"""As the study has it; a detector's step is no CUDA graph."""


def parts(work: Work) -> list[Part]:
    """A part for each detector, from scratch and without attention."""
    nets = (TINY_NET,) if work.tiny else NETS
    return [Part(net, 60, partial(_speed, work, net)) for net in nets]


def _speed(work: Work, net: str) -> dict[str, Any]:
    inputs, seconds = (TINY, 0.1) if work.tiny else (COCO, 8.0)
    sites = sites_of(load(net, inputs))
    device = choose(work.device)
    probe = Probe("detection", net, sites, "none", RECIPE, device, seconds, inputs=inputs)
    speed = measure(probe)
    return {
        "net": net,
        "images_per_s": 1 / speed.per_sample,
        "start_s": speed.start,
        "size": list(inputs.shape),
        "batch": RECIPE.batch,
    }
