"""What a candidate costs in Optuna's SQLite storage, by the way in which it is written.

    python -m benchmarks.trial_writes [--trials 0 100 1000 10000] [--out FILE.json]

Three ways: a trial added when it is finished (nobody sees it run); a running trial added in one
transaction and finished in two (what the store does); and Optuna's ask and tell, a transaction for
each parameter. Each candidate has three parameters and a record of 1 kB. CPU time is measured
beside the time by the clock, for a machine that does other work too.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, text

from benchmarks.results import deliver

NAME = "study"
CHOICES = tuple(f"bam(r={r},d={d})" for r in (4, 8, 16, 32) for d in (1, 2, 4, 6))
SPACE: dict[str, BaseDistribution] = {
    f"layer{number}": CategoricalDistribution(CHOICES) for number in (1, 2, 3)
}
VALUES = [70.0, 1.0, 0.5]
RECORD = "x" * 1000
REPEATS = 20


class First(RandomSampler):
    """Proposes the first choice at each site at once."""

    def infer_relative_search_space(
        self, _study: optuna.Study, _trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See BaseSampler."""
        return SPACE

    def sample_relative(
        self, _study: optuna.Study, _trial: FrozenTrial, _space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See BaseSampler."""
        return dict.fromkeys(SPACE, CHOICES[0])


def added(study: optuna.Study) -> None:
    """A candidate that is written when it is finished."""
    study.add_trial(_trial(TrialState.COMPLETE, VALUES, {"placement": "p", "record": RECORD}))


def begun(study: optuna.Study) -> None:
    """A candidate that is written when it begins, and when it is finished."""
    trial = _trial(TrialState.RUNNING, None, {"placement": "p", "candidate": 1})
    trial_id = study._storage.create_new_trial(study._study_id, trial)
    study._storage.set_trial_user_attr(trial_id, "record", RECORD)
    study._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, VALUES)


def asked(study: optuna.Study) -> None:
    """A candidate that is asked of Optuna and told to it."""
    trial = study.ask(SPACE)
    trial.set_user_attr("placement", "p")
    trial.set_user_attr("record", RECORD)
    study.tell(trial, VALUES)


def _trial(
    state: TrialState, values: list[float] | None, attributes: dict[str, Any]
) -> FrozenTrial:
    return optuna.create_trial(
        state=state,
        values=values,
        params=dict.fromkeys(SPACE, CHOICES[0]),
        distributions=SPACE,
        user_attrs=attributes,
    )


WAYS: dict[str, Callable[[optuna.Study], None]] = {"added": added, "begun": begun, "asked": asked}
COPIES = {
    "trials": "trial_id, number, study_id, state, datetime_start, datetime_complete",
    "trial_params": "trial_id, param_name, param_value, distribution_json",
    "trial_values": "trial_id, objective, value, value_type",
    "trial_user_attributes": "trial_id, key, value_json",
}
"""The tables and columns in which Optuna has a trial."""


def filled(url: str, trials: int) -> None:
    """Make a study of so many finished trials: one that is added, and copies of its rows."""
    study = optuna.create_study(study_name=NAME, storage=url, directions=["minimize"] * 3)
    if not trials:
        return
    added(study)
    numbers = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :trials) "
    )
    with create_engine(url).begin() as connection:
        for table, columns in COPIES.items():
            shifted = columns.replace("trial_id", "trial_id + i").replace("number", "number + i")
            connection.execute(
                text(
                    f"INSERT INTO {table} ({columns}) "
                    f"{numbers if trials > 1 else ''}SELECT {shifted} FROM {table}, n"
                ),
                {"trials": trials},
            )


def milliseconds(way: Callable[[optuna.Study], None], study: optuna.Study) -> dict[str, float]:
    """Milliseconds of the first call, and the medians of those after it."""
    clock, cpu = [], []
    for _ in range(1 + REPEATS):
        before, spent = time.perf_counter(), time.process_time()
        way(study)
        clock.append(1000 * (time.perf_counter() - before))
        cpu.append(1000 * (time.process_time() - spent))
    return {
        "first_cpu_ms": cpu[0],
        "cpu_ms": statistics.median(cpu[1:]),
        "ms": statistics.median(clock[1:]),
    }


def main() -> None:
    """Measure each way at each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[0, 100, 1000, 10_000])
    parser.add_argument("--out", type=Path)
    asked_for = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count()}
    found["optuna"] = optuna.__version__
    for trials in asked_for.trials:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/study.db"
            filled(url, trials)
            for name, way in WAYS.items():
                storage = RDBStorage(url)  # one for each: it remembers trials
                study = optuna.load_study(study_name=NAME, storage=storage, sampler=First())
                found[f"{name}_{trials}"] = milliseconds(way, study)
                print(name, trials, json.dumps(found[f"{name}_{trials}"]), flush=True)
    deliver(found, asked_for.out)


if __name__ == "__main__":
    main()
