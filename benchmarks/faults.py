"""What dies, and what is lost: a fault campaign on real, tiny CPU studies.

    python -m benchmarks.faults --data cifar100.npz [--kills 100] [--mutations 10000]
        [--records 10000] [--only PART] [--out FILE.json]

Kills: a study of which the driver or a worker gets SIGKILL at random instants, and which the same
command continues until it ends; then the next one, until there were as many kills. After each kill
every candidate and final training that was told of before must still be there, with the same score
and the same seconds: these would differ had it run again. A driver whose worker is killed again and
again before it has started gives up in a sentence; the same command continues then too. Mutations:
study files, space files and placements with random changes; each is read, or refused in a sentence.
Ray: a cluster of three nodes on this machine loses one while a study runs; trials that only sleep
tell what four workers gain over one. Large: a study of so many records is opened, and asked for its
next candidate.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch

from bam_search.analysis.pareto import pareto_front
from bam_search.config import flat
from bam_search.errors import ExplainedError
from bam_search.model.attach import fit_to_sites, resolve
from bam_search.model.build import sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.model.load import load
from bam_search.score.cost_table import cost_table
from bam_search.score.device import choose
from bam_search.score.evaluate import Experiment, Job, Result
from bam_search.search.loop import search
from bam_search.search.on_ray import on_ray
from bam_search.search.storage import StudyStorage
from bam_search.search.store import Store, open_store, read_records
from bam_search.search.study import load_study
from bam_search.space.placement import Placement
from bam_search.study.record import Record, main_records
from bam_search.tasks.classification import sources
from bam_search.tasks.classification.cifar100 import CIFAR_INPUTS, synthetic
from bam_search.tasks.recipe import Recipe
from bam_search.tasks.split import SplitSizes
from benchmarks.invented import at_once, invented
from benchmarks.results import deliver

ROOT = Path(__file__).parent.parent
SMALL = [
    "--epochs",
    "2",
    "--workers",
    "2",
    "--set",
    "data.images=600",
    "--set",
    "data.validation=150",
    "--set",
    "recipe.batch=50",
]
SMALL += [
    "--set",
    "startup=6",
    "--set",
    "finalists={seeds=2, most=2, leave_one_out=true}",
    "--set",
    "rungs.epochs=[1]",
]
LONGEST = 25.0
"""Seconds that a driver lives at most before something is killed; it takes about 7 to start."""
NAP = 1.0
PARTS = ("mutations", "results", "large", "ray", "node", "kills")


def command(data: str, out: Path, trials: int, *more: str) -> list[str]:
    """A tiny study, with rungs, a random baseline, finalists and ablations."""
    words = [
        "run",
        "--study",
        "placement",
        "--device",
        "cpu",
        "--data",
        data,
        "--trials",
        str(trials),
        "--out",
        str(out),
    ]
    return [sys.executable, "-m", "bam_search", *words, *SMALL, *more]


# ---- kills


class Life:
    """One process of a study, and what it has told so far."""

    def __init__(self, words: Sequence[str]) -> None:
        self.told: list[str] = []
        self.other: list[str] = []
        self.process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            (self.told if line.startswith("[") else self.other).append(line)

    def wait(self) -> int:
        """The exit code; all has been read then."""
        code = self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def workers(self) -> list[int]:
        """The processes that train (or are about to)."""
        servers = [pid for pid, said in children(self.process.pid) if "forkserver" in said]
        return [pid for server in servers for pid, _ in children(server)]


def children(of: int) -> list[tuple[int, str]]:
    """The processes that one has started, each with its command line."""
    command = ["ps", "-ww", "--ppid", str(of), "-o", "pid=,args="]
    found = subprocess.run(command, capture_output=True, text=True).stdout
    lines = (line.split(maxsplit=1) for line in found.splitlines())
    return [(int(pid), said) for pid, said in lines]


def seen(folder: Path, place: StudyStorage) -> dict[str, tuple[Any, ...]]:
    """The scores and seconds that a study's store holds now, by training."""
    if not (folder / "study.json").exists() or not place.exists():
        return {}
    records = [Record.from_dict(json.loads(text)) for text in place.attributes("record")]
    found: dict[str, tuple[Any, ...]] = {
        "twice": (len(records) - len({record.number for record in records}),)
    }
    found |= {f"#{r.tag}": (r.placement, r.val_metric, r.seconds, r.failure) for r in records}
    return found | {
        key: (kept,) for key, kept in place.open().user_attrs.items() if key.startswith("final:")
    }


def undisturbed(data: str, trials: int, *more: str) -> list[Record]:
    """The records of a study that nothing happened to."""
    with tempfile.TemporaryDirectory() as folder:
        life = Life(command(data, Path(folder) / "whole", trials, *more))
        assert life.wait() == 0, "".join(life.other)
        return read_records(Path(folder) / "whole")


COUNTED = (
    *("kills", "of_drivers", "of_workers", "gave_up", "studies"),
    *("lost", "repeated", "orphans", "unequal"),
)
CANNOT_START = "a worker process cannot start"
"""What a driver says that gives up, with exit code 1, as its worker died again and again."""


def campaign(
    data: str,
    expected: Sequence[Record],
    kills: int,
    trials: int,
    *more: str,
    seed: int = 0,
    storage: str | None = None,
    longest: float = LONGEST,
) -> dict[str, Any]:
    """Kill until there were so many kills and the last study has ended.

    The result counts what was lost, repeated and left over, and says how the ends compare.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        total: dict[str, Any] = dict.fromkeys(COUNTED, 0)
        while total["kills"] < kills:
            name = f"faulty{total['studies']}"
            place = StudyStorage.of(Path(folder) / name, storage, name)
            there = ("--storage", storage, "--name", name) if storage else ()
            _until_it_ends(
                command(data, Path(folder) / name, trials, *more, *there),
                Path(folder) / name,
                place,
                rng,
                kills,
                longest,
                total,
            )
            total["studies"] += 1
            total["unequal"] += not _equal(expected, read_records(Path(folder) / name))
            shutil.rmtree(Path(folder) / name)
        return total | {"front_identical": total["unequal"] == 0, "candidates": len(expected)}


def _until_it_ends(
    words: list[str],
    folder: Path,
    place: StudyStorage,
    rng: random.Random,
    kills: int,
    longest: float,
    total: dict[str, Any],
) -> None:
    known: dict[str, tuple[Any, ...]] = {}
    code = -1
    while code != 0:
        life = Life(words)
        told = _plague(life, rng, kills, longest, total)
        code = life.wait()
        said = "".join(life.other)
        gave_up = code == 1 and CANNOT_START in said
        total["gave_up"] += gave_up
        assert gave_up or code in (0, -signal.SIGKILL), f"exit code {code}: {said}"
        now = seen(folder, place)
        total["lost"] += _lost(known, told, now)
        total["repeated"] += _repeated(known, now)
        known = now
        _say(f"{total}, {len(now)} kept")


Kept = Mapping[str, tuple[Any, ...]]


def _lost(before: Kept, told: Sequence[str], now: Kept) -> int:
    """How many trainings are not there `now` that were there `before`, or were `told` since."""
    missing = before.keys() - now.keys() - {"twice"}
    tags = [match.group() for line in told if (match := re.search(r"#\w+", line))]
    untold = [tag for tag in tags if tag not in now]
    tested = sum("  test " in line for line in told)
    final = tested + _finals(before) - _finals(now)
    return len(missing) + len(untold) + max(0, final)


def _finals(kept: Kept) -> int:
    return sum(key.startswith("final:") for key in kept)


def _repeated(before: Kept, now: Kept) -> int:
    """How many trainings have run again: they have other scores or seconds, or two records."""
    twice = now.get("twice", (0,))[0]
    trainings = before.keys() & now.keys() - {"twice"}
    return twice + sum(now[key] != before[key] for key in trainings)


def _plague(
    life: Life, rng: random.Random, kills: int, longest: float, total: dict[str, Any]
) -> list[str]:
    """Kill workers now and then, and at last the driver; what it had told by then."""
    while total["kills"] < kills:
        with contextlib.suppress(subprocess.TimeoutExpired):
            life.process.wait(rng.uniform(0, longest))
            return life.told  # it ended
        workers = life.workers()
        victim = rng.choice(workers) if workers and rng.random() < 0.5 else life.process.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            total["kills"] += 1
            total["of_workers" if victim != life.process.pid else "of_drivers"] += 1
        if victim == life.process.pid:
            life.wait()
            total["orphans"] += _left(workers)
            break
    life.wait()
    return life.told


def _left(pids: Sequence[int], seconds: float = 10.0) -> int:
    """How many of these processes are there after a while: workers end with their driver."""
    deadline = time.monotonic() + seconds
    while (
        left := sum(Path(f"/proc/{pid}").exists() for pid in pids)
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def timeless(record: Record) -> Record:
    """The record without what a clock measured."""
    return replace(
        record,
        seconds=None,
        test_seconds=None,
        latency_overhead=None,
        latency_interval=(),
        deployed_latency_overhead=None,
        deployed_latency_interval=(),
    )


def _equal(one: Sequence[Record], other: Sequence[Record]) -> bool:
    """Whether all records are the same, and so the fronts, but for what a clock measured."""

    fronts = [
        [
            record.number
            for record in pareto_front(main_records(records), ("metric", "params_overhead"))
        ]
        for records in (one, other)
    ]
    return fronts[0] == fronts[1] and list(map(timeless, one)) == list(map(timeless, other))


# ---- mutations

ODD = ["", "nan", "inf", "-1", "9" * 400, "1e999", *"[]{}\"'=\\\0\n(),.*/é\U0001f600"]
ODD += [
    "[[[" * 500,
    "none",
    "bam",
    "block",
    "true",
    "1979-05-27",
    "0x",
    "_",
    "#",
    "layer1",
    "=bam",
    "..",
    "r=0",
    "d=99999999999999999999",
]


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to four changes.

    A change leaves a piece out, doubles it, swaps it with another, or puts something odd in.
    """
    for _ in range(rng.randint(1, 4)):
        start, length = rng.randrange(len(text) + 1), rng.choice((1, 2, 5, 20, 80))
        piece = text[start : start + length]
        new = rng.choice(("", piece * 2, piece[::-1], rng.choice(ODD), rng.choice(ODD)))
        text = text[:start] + new + text[start + length :]
    return text


def mutations(count: int, seed: int = 0, seconds: float = 20.0) -> dict[str, Any]:
    """Read so many mutated texts, and count the outcomes.

    They are: accepted, refused, ended in a traceback, took too long.
    """
    rng = random.Random(seed)
    found: dict[str, Any] = {
        "mutations": count,
        "accepted": 0,
        "refused": 0,
        "tracebacks": 0,
        "hangs": 0,
        "examples": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        readers = list(_readers(Path(folder)))
        for index in range(count):
            text, read = readers[index % len(readers)]
            text = mutated(text, rng)
            outcome, said = _outcome(read, text, seconds)
            found[outcome] += 1
            if said:
                found["examples"].append({"text": text[:300], "said": said})
    return found


def _readers(folder: Path) -> Iterator[tuple[str, Callable[[str], object]]]:
    """Texts, and what reads them."""
    cpu = choose("cpu")
    space = load("small", CIFAR_INPUTS)
    sites = sites_of(space)
    costs = cost_table(space, sites)

    def study(text: str) -> object:
        (folder / "study.toml").write_bytes(text.encode(errors="surrogatepass"))
        return load_study(str(folder / "study.toml"), cpu, {}, [])

    def placement(text: str) -> object:
        return costs.cost(fit_to_sites(text, sites)[0])

    def stored(text: str) -> object:
        return resolve(Placement.from_json(text), sites)

    def option(text: str) -> object:
        return load_study("placement", cpu, {}, [text])

    def file(text: str) -> object:
        (folder / "space.py").write_bytes(text.encode(errors="surrogatepass"))
        found = load(str(folder / "space.py"), CIFAR_INPUTS)
        return choice_space_of(found, sites_of(found))

    placements = (
        "layer1=bam layer3=bam(r=8,d=2)",
        "bottleneck=bam(r=16,d=4) /layer3.*bn2/=se",
        "every-block=se(r=4) layer2,layer3=none",
        "layer*.0=cbam",
    )
    given = flat(load_study("placement", cpu, {}, []).to_dict())
    options = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    for number, path in enumerate(sorted((ROOT / "studies").glob("*.toml"))):
        yield path.read_text(encoding="utf-8"), study
        yield (ROOT / "search_spaces" / "torchvision_resnet50.py").read_text(encoding="utf-8"), file
        yield resolve(placements[number % len(placements)], sites).json, stored
        for one in placements:
            yield one, placement
        for one in options[number::4]:
            yield one, option


class _TooLong(BaseException):
    """Not an Exception: nothing on the way may take it for a failure of its own."""


def _outcome(read: Callable[[str], object], text: str, seconds: float) -> tuple[str, str]:
    def end(*_: object) -> None:
        raise _TooLong

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        read(text)
        return "accepted", ""
    except ExplainedError:
        return "refused", ""
    except _TooLong:
        return "hangs", "took too long"
    except Exception:
        return "tracebacks", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# ---- Ray

SLEEPY = f"""
import time
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8, padding=1))
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.one(x).mean((2, 3)))

    def train(self, mode=True):
        if mode and self.head.weight.device.type != "meta":
            time.sleep({NAP})
        return super().train(mode)
"""


def ray_speedup(jobs: int = 24) -> dict[str, float]:
    """Seconds of so many sleeping trials by one worker, over those by four."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sleepy.py").write_text(SLEEPY)
        name = f"{Path(folder) / 'sleepy.py'}:Net"
        data = synthetic("asked for")
        parts = sources.task().split(data, SplitSizes.of(len(data.train), 300, 100), seed=0)
        task = Experiment(
            "classification",
            name,
            sites_of(load(name, CIFAR_INPUTS)),
            parts,
            Recipe(epochs=1, batch=50, precision="fp32"),
            choose("cpu"),
            1,
        )
        found = {}
        for workers, share in ((1, jobs // 4), (4, jobs)):
            with _cluster(1, workers) as (address, _), on_ray(task, workers, address) as submit:
                # Processes start, and fetch the images.
                _ended([submit(Job("none", 0, 1)) for _ in range(workers)])
                started = time.perf_counter()
                _ended([submit(Job("none", 0, 1)) for _ in range(share)])
                found[workers] = (time.perf_counter() - started) / share
    return {"ray_speedup": found[1] / found[4], "ray_seconds_a_trial": found[1]}


def _ended(futures: Sequence["Future[Result]"]) -> None:
    failures = [future.result().failure for future in futures]
    assert not any(failures), failures[0]


@contextlib.contextmanager
def _cluster(nodes: int, cores_each: int) -> Iterator[tuple[str, Any]]:
    """A Ray cluster on this machine: its address, and the node that can be lost."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0 if nodes > 1 else cores_each, "include_dashboard": False},
    )
    more = [cluster.add_node(num_cpus=cores_each) for _ in range(nodes - 1)]
    try:
        yield (
            cluster.address,
            (lambda: cluster.remove_node(more[0], allow_graceful=False)) if more else None,
        )
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def ray_loses_a_node(
    data: str, expected: Sequence[Record], trials: int, *more: str
) -> dict[str, Any]:
    """A study on three nodes, of which one is killed while it trains.

    The result says whether its records are those of a local run.
    """
    with tempfile.TemporaryDirectory() as folder:
        with _cluster(3, 1) as (address, lose):
            life = Life(
                command(
                    data,
                    Path(folder) / "ray",
                    trials,
                    *more,
                    "--executor",
                    "ray",
                    "--address",
                    address,
                )
            )
            while len(life.told) < 4 and life.process.poll() is None:
                time.sleep(0.1)
            lose()
            code = life.wait()
        assert code == 0, "".join(life.other)
        return {
            "ray_node_lost_records_identical": _equal(expected, read_records(Path(folder) / "ray"))
        }


# ---- large


def results_per_s(records: int = 300) -> dict[str, float]:
    """How many finished trainings a second the driver handles.

    It receives and keeps each, and answers with the next candidate.
    """
    study, plan = invented(records)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "study", {}, study.objectives)
        search(study, plan, store, at_once, lambda _record: ends.append(time.perf_counter()))
    return {
        "results_per_s": 1 / statistics.median(b - a for a, b in itertools.pairwise(ends)),
        "results_of_records": records,
    }


def large(records: int) -> dict[str, float]:
    """Seconds and memory of opening a study of so many records and asking for its next candidate.

    They are measured in a fresh process.
    """
    with tempfile.TemporaryDirectory() as folder:
        filled(Path(folder), records)
        code = f"from benchmarks.faults import reopened; reopened({str(folder)!r}, {records})"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
    found: dict[str, float] = json.loads(done.stdout)
    return {f"open_{records // 1000}k_{unit}": value for unit, value in found.items()}


def filled(folder: Path, records: int) -> None:
    """Make a study of so many finished candidates."""
    study, plan = invented(records)
    store = open_store(folder, {}, study.objectives)
    search(replace(study, sampler="random", startup=0), plan, store, at_once, lambda _record: None)


def reopened(folder: str, records: int) -> None:
    """Print the seconds and memory of opening a study.

    The clock covers reading the records and the next proposal, not imports and the counting of
    costs.
    """
    study, plan = invented(records + 1)
    started = time.perf_counter()
    store: Store = open_store(Path(folder), {}, study.objectives)
    search(study, plan, store, at_once, lambda _record: None)
    seconds = time.perf_counter() - started
    # Not getrusage: its maximum is inherited from the process that started this one.
    (peak,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    print(json.dumps({"s": seconds, "mib": int(peak.split()[1]) / 1024}))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run the whole campaign, and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument(
        "--only",
        action="append",
        choices=PARTS,
        help="This part anew, the others as --out has them.",
    )
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found: dict[str, Any] = {
        "device": choose("cpu").name,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    found |= {"torch": torch.__version__, "optuna": optuna.__version__}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "mutations": lambda: mutations(asked.mutations),
        "results": results_per_s,
        "large": lambda: large(asked.records),
        "ray": ray_speedup,
        "node": lambda: ray_loses_a_node(
            asked.data, undisturbed(asked.data, asked.trials), asked.trials
        ),
        "kills": lambda: campaign(
            asked.data, undisturbed(asked.data, asked.trials), asked.kills, asked.trials
        ),
    }
    if asked.only and asked.out and asked.out.exists():
        found = json.loads(asked.out.read_text()) | found
    for name in asked.only or parts:
        found |= parts[name]()
        _say(str({key: value for key, value in found.items() if key != "examples"}))
    deliver(found, asked.out)


if __name__ == "__main__":
    main()
