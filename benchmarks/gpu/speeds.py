"""Images a second of the usual loop and of the engine's forms.

They are on ResNet18, on small nets packed, and on ResNet50.

The rungs are those of `benchmarks/ladder.py`, whatever they are: each in a fresh process on a GPU.
"""

import contextlib
import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bam_search.processes import cores
from bam_search.tasks.classification.images import Images
from benchmarks import ladder, usual_loop
from benchmarks.arms import Setting
from benchmarks.gpu.candidate import ground, phase_part, references
from benchmarks.gpu.parity import images
from benchmarks.gpu.parts import Absent, Part, Work
from benchmarks.ladder import ENGINE, LADDER, MPS, TOGETHER, Rung

STUDY_BATCH = 256
"""Of the placement study on a GPU."""
USUAL = "usual loop"
TINY_IMAGES = 240


def resnet18(work: Work) -> list[Part]:
    """The stage on ResNet18.

    It measures the engine and the usual loop at each one's batch, the engine at the usual loop's
    batch, then the engine's other forms.
    """
    track = Track(work, "resnet18")
    forms = [track.engine(name, rung) for name, rung in _forms(work.device) if name != ENGINE]
    together = [] if work.tiny else [track.together(2, served=False)]
    return [*track.main(), *together, track.bound(), *forms]


def packed(work: Work) -> list[Part]:
    """The stage on a small net, in one process and in several.

    Several share the GPU in turn or, under MPS, at once.
    """
    track = Track(work, "small")
    several = sorted(TOGETHER[work.device].values())
    plain = [track.together(n, served=False) for n in several]
    served = [track.together(n, served=True) for n in several]
    pairs = [part for pair in zip(plain, served, strict=True) for part in pair]
    return [*track.main(), *pairs]


def resnet50(work: Work) -> list[Part]:
    """The stage on ResNet50.

    It measures the engine, the four references phase by phase, the usual loop, then the engine's
    other forms.
    """
    track = Track(work, "resnet50")
    prepared = functools.cache(lambda: images(work))
    grounds = functools.cache(lambda net: ground(work, prepared(), net))
    net = work.space("resnet50")
    texts = list(references(work.device).values())
    phased = [phase_part(grounds, net, text) for text in (texts[2:3] if work.tiny else texts)]
    first, usual, *rest = track.main()
    forms = [
        track.engine(name, rung)
        for name, rung in _forms(work.device)
        if name != ENGINE and not work.tiny
    ]
    return [first, *phased, usual, track.bound(), *([] if work.tiny else rest), *forms]


def _forms(device: str) -> list[tuple[str, Rung]]:
    """The rungs of the ladder that are forms of the engine; what must be compiled comes last."""
    forms = [(name, rung) for name, rung in LADDER[device].items() if rung.engine]
    return sorted(forms, key=lambda form: form[1].compile or getattr(form[1], "fuse", False))


def told(images_per_s: float) -> dict[str, float]:
    """For JSON."""
    return {"images_per_s": images_per_s}


class Track:
    """Rungs on one net: parts of a stage."""

    def __init__(self, work: Work, net: str) -> None:
        self._work = work
        ours = 60 if work.tiny else STUDY_BATCH
        n = TINY_IMAGES if work.tiny else ladder.IMAGES[work.device]
        self._setting = Setting(work.data, work.device, work.space(net), None, 0, batch=ours)
        self._images: Callable[[], Images] = functools.cache(lambda: self._setting.some(n))
        self._reached: Callable[[], float] = functools.cache(self._as_it_is)

    def main(self) -> list[Part]:
        """The engine, the usual loop, and the engine with the usual loop's batches."""
        workers = [0] if self._work.device == "cpu" else [max(1, cores() - 2), max(1, cores() // 2)]
        same = self.engine(ENGINE, LADDER[self._work.device][ENGINE], usual_loop.BATCH)
        first, *rest = [self._usual(n) for n in workers]
        ours = Part(f"{ENGINE}, batch {self._setting.batch}", 50, lambda: told(self._reached()))
        return [ours, first, same, *rest]

    def _as_it_is(self) -> float:
        return self._speed(self._setting, LADDER[self._work.device][ENGINE])

    def engine(self, name: str, rung: Rung, batch: int | None = None) -> Part:
        """A form of the engine; a form that is compiled may take longer."""
        setting = replace(self._setting, batch=batch or self._setting.batch)
        limit = 120 if rung.compile or getattr(rung, "fuse", False) else 50
        return Part(
            f"{name}, batch {setting.batch}", limit, lambda: told(self._speed(setting, rung))
        )

    def _usual(self, workers: int) -> Part:
        setting = replace(self._setting, batch=usual_loop.BATCH, workers=workers)
        name = f"{USUAL}, {workers} workers, batch {usual_loop.BATCH}"
        return Part(name, 60, lambda: told(self._speed(setting, Rung())))

    def _speed(self, setting: Setting, rung: Rung) -> float:
        return self._fresh(ladder.speed, setting, rung, self._images(), cores())

    def together(self, processes: int, served: bool) -> Part:
        """The engine in several processes, under MPS or not."""

        def measure() -> dict[str, Any]:
            if served and not shutil.which(MPS):
                raise Absent(f"{MPS} is not on the PATH")
            with ladder.service() if served else contextlib.nullcontext():
                return told(ladder.together(self._setting, self._images(), processes))

        plural = "es" if processes > 1 else ""
        under = ", under MPS" if served else ""
        name = f"the engine, {processes} process{plural} at once{under}"
        return Part(f"{name}, batch {self._setting.batch}", 60, measure)

    def bound(self) -> Part:
        """The most images a second that the machine's own rates allow.

        With it comes the share that the engine reaches.
        """

        def measure() -> dict[str, Any]:
            if self._work.tiny:
                raise Absent("a tiny run has no bound")
            return ladder.bound(self._setting, self._reached())

        return Part("bound", 60, measure)

    def _fresh(self, function: Callable[..., Any], *args: object) -> Any:
        """In a fresh process on a GPU, whose settings nobody else then has; on a CPU here."""
        return function(*args) if self._work.device == "cpu" else ladder.alone(function, *args)
