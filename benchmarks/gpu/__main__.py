"""Measure on a GPU machine, the most valuable things first, and write down what came of it.

    python -m benchmarks.gpu --minutes 12 --data cifar100.npz --out DIR
        [--stages NAME ...] [--parts TEXT ...] [--device cuda] [--tiny]

Each stage runs in processes of its own and has its own limit of time, within what is left of
--minutes: one that fails, hangs or crashes stops no other. After each step DIR holds what is known,
in at most 8 files: summary.txt (a page; printed last), gpu-figures.json and gpu-kernels.json,
log.txt, and of the planned study index.html, records.csv, front.csv and study.tar.gz. A second call
with the same DIR goes on with what is not done; a stage that is done is run again where --stages
names it. --device cpu runs all of it, tiny, on a CPU.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

from bam_search.errors import ExplainedError, UserError
from bam_search.files import write
from benchmarks.gpu.folder import LOG, SUMMARY, Folder
from benchmarks.gpu.parts import CUT_OFF, DONE, FAILED, Work, sentence
from benchmarks.gpu.parts import call as invoke
from benchmarks.gpu.runner import FORKSERVER, METHOD, PRELOADED, UNDER_WAY, Outcome, run
from benchmarks.gpu.stages import STAGES, STUDY, Stage, allowed, named
from benchmarks.gpu.summary import text

CLOSING = 12.0
"""Seconds of a call that belong to no stage: one may need some to stop."""
PROGRAMS = ("/usr/local/nvidia/bin", "/usr/local/cuda/bin")
"""Where NVIDIA's installers put programs that may not be on the PATH."""
CACHES = {
    "TMPDIR": "",
    "CUDA_CACHE_PATH": "cuda",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
}
"""Folders that would else lie in a home folder."""


@dataclass(frozen=True)
class Asked:
    """The command line."""

    minutes: float
    data: str
    out: Path
    device: str
    tiny: bool
    stages: list[str]
    parts: list[str]


def parse(words: list[str]) -> Asked:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="the time of this call (12)")
    parser.add_argument(
        "--data", required=True, help="cifar100.npz, cifar-100-python/, or: generated"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder of results, empty or of an earlier call"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="sizes that take seconds, as always with --device cpu"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        default=[],
        metavar="NAME",
        help=" ".join(stage.name for stage in STAGES),
    )
    parser.add_argument(
        "--parts", nargs="+", default=[], metavar="TEXT", help="only parts whose name has one"
    )
    asked = parser.parse_args(words)
    if not 0 < asked.minutes < 1e5:
        parser.error(f"argument --minutes: {asked.minutes:g} is no time")
    data = asked.data if asked.data == "generated" else str(Path(asked.data).absolute())
    tiny = asked.tiny or asked.device == "cpu"
    out = asked.out.absolute()
    return Asked(asked.minutes, data, out, asked.device, tiny, asked.stages, asked.parts)


def measure(asked: Asked) -> int:
    """Run the stages, and print the summary; the exit code. Raises Sentence."""
    began = time.monotonic()
    whole = 60 * asked.minutes
    chosen = named(asked.stages) if asked.stages else list(STAGES)
    with surrounded() as temporary:
        folder = Folder.open(asked.out, _about(asked))
        folder.keep()
        call = Call(asked, folder, temporary, began, whole)
        code = call.run([stage for stage in chosen if asked.stages or not call.done(stage)])
        print(call.summarise(), end="")
    return code


@contextlib.contextmanager
def surrounded() -> Iterator[Path]:
    """A folder for everything that is written beside the results.

    Processes that are started within the context use it.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="bam-gpu-", ignore_cleanup_errors=True) as name:
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *PROGRAMS])
        os.environ.update({variable: str(Path(name) / place) for variable, place in CACHES.items()})
        try:
            yield Path(name)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _about(asked: Asked) -> dict[str, Any]:
    """What is known of the machine.

    A process that ends asks for it, as a process that holds the device would disturb others.
    """
    context = get_context(METHOD[asked.device])
    if METHOD[asked.device] == FORKSERVER:
        context.set_forkserver_preload(PRELOADED)
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(
                invoke, "benchmarks.gpu.machine:about", asked.device, asked.data, asked.tiny
            ).result()
    except (ImportError, BrokenProcessPool) as error:
        raise UserError(
            f"the project cannot be used here: {sentence(error)}",
            "PYTHONPATH may name the folder of what it needs",
        ) from None


@dataclass(frozen=True)
class Call:
    """A call under way: when it began, by `time.monotonic`, and its `whole` seconds."""

    asked: Asked
    folder: Folder
    temporary: Path
    began: float
    whole: float

    def summarise(self) -> str:
        """Write the summary; its text."""
        page = text(self.folder, f"{time.monotonic() - self.began:.0f} of {self.whole:.0f} s")
        write(self.folder.path / SUMMARY, page)
        return page

    def done(self, stage: Stage) -> bool:
        """Whether nothing of a stage is left to do."""
        return stage.name in self.folder.outcomes and self.folder.outcomes[stage.name].state == DONE

    def run(self, stages: list[Stage]) -> int:
        """Run the stages one after the other; the exit code."""
        try:
            for number, stage in enumerate(stages):
                self._stage(stage, stages[number + 1 :])
        except KeyboardInterrupt as interrupt:
            say(f"interrupted by {interrupt or 'Ctrl-C'}")
            return 130
        return 0 if all(self._well(stage) for stage in stages) else 1

    def _well(self, stage: Stage) -> bool:
        outcome = self.folder.outcomes.get(stage.name, Outcome())
        return outcome.state == DONE and all(
            part["state"] != FAILED for part in outcome.parts.values()
        )

    def _stage(self, stage: Stage, later: list[Stage]) -> None:
        left = self.began + self.whole - CLOSING - time.monotonic()
        seconds = allowed(stage, later, left, self.whole)
        if not seconds:
            say(f"{stage.name}: skipped, {max(0, left):.0f} s are left")
            return
        if self.done(stage):
            self._forget(stage)
        outcome = self.folder.begin(stage.name, seconds)
        say(f"{stage.name}: {stage.question} at most {seconds:.0f} s")
        began = time.monotonic()

        def keep() -> None:
            self.folder.where[stage.name]["seconds"] = round(time.monotonic() - began, 1)
            self.folder.keep()

        try:
            self._run(stage, seconds, outcome, keep)
        finally:
            outcome.state = CUT_OFF if outcome.state == UNDER_WAY else outcome.state
            keep()
            self.folder.shorten_log()
            self.summarise()
        say(f"{stage.name}: {outcome.state} after {time.monotonic() - began:.0f} s {outcome.why}")

    def _forget(self, stage: Stage) -> None:
        del self.folder.outcomes[stage.name]
        if stage.name == STUDY:
            self.folder.drop_study()

    def _run(
        self, stage: Stage, seconds: float, outcome: Outcome, keep: Callable[[], None]
    ) -> None:
        asked, log = self.asked, self.folder.path / LOG
        with log.open("a") as file:
            file.write(f"\n== {stage.name}, at most {seconds:.0f} s\n")
        work = Work(
            asked.data,
            asked.device,
            asked.tiny,
            seconds,
            self.temporary,
            tuple(asked.parts),
            self.folder.known(),
        )
        if stage.name == STUDY:
            self.folder.give_study(self.temporary)
        try:
            run(stage, work, outcome, log, keep)
        finally:
            if stage.name == STUDY:
                self.folder.take_study(self.temporary / STUDY)


def say(line: str) -> None:
    """How far it is."""
    print(line.rstrip(), file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> int:
    """Run the command; return its exit code.

    The code is 0 if all is done, 1 if something failed or is left to do, 2 for a mistake in the
    request, and 130 if it was interrupted.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    asked = parse(sys.argv[1:] if words is None else words)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        return measure(asked)
    except ExplainedError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        say(f"interrupted by {interrupt or 'Ctrl-C'}")
        return 130


if __name__ == "__main__":
    sys.exit(main())
