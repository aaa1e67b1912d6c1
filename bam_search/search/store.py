"""The study's folder: an Optuna study of finished candidates, the resolved study beside it, and the tables made from them.

    study.db      Optuna's own storage (SQLite; optuna-dashboard opens it): one finished trial a candidate, its record as an attribute
    study.json    the question as resolved, the data, the machine: what a continued run must agree with
    records.csv   every record        front.csv   the front        index.html   the report

The trials in study.db are the truth; the rest is written from them, each file at once or not at all.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL  # Optuna's own storage library; it quotes odd folder names
from sqlalchemy.exc import SQLAlchemyError

from bam_search.config import flat
from bam_search.errors import UserError
from bam_search.files import write
from bam_search.search.record import Record

RECORD = "record"
FINAL = "final:"
LATENCY = "latency:"
BROKEN = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
MEND = "restore it, or start a new study with --out another/folder"


@dataclass(frozen=True, eq=False)
class Store:
    """An open study folder with one writer."""

    folder: Path
    study: optuna.Study
    identity: Mapping[str, Any]

    def records(self) -> dict[int, Record]:
        """The finished candidates by number, with their test scores where these are known."""
        loaded = [Record.from_dict(json.loads(trial.user_attrs[RECORD])) for trial in self.study.get_trials(deepcopy=False)]
        finals: dict[int, dict[int, dict[str, Any]]] = {}
        for (number, seed), fields in sorted(self._finals().items()):
            finals.setdefault(number, {})[seed] = fields
        timed = {int(key.removeprefix(LATENCY)): json.loads(kept) for key, kept in self.study.user_attrs.items() if key.startswith(LATENCY)}
        whole = [replace(r, **_final_fields(finals.get(r.number, {})), **_latency_fields(timed.get(r.number))) for r in loaded]
        return {r.number: r for r in sorted(whole, key=lambda r: r.number)}

    def add_latency(self, number: int, overhead: float, interval: tuple[float, float]) -> None:
        """Keep a candidate's measured latency above the backbone's, in percent, with its interval."""
        self.study.set_user_attr(f"{LATENCY}{number}", json.dumps([overhead, *interval]))

    def final_seeds(self) -> set[tuple[int, int]]:
        """The final trainings that are done, as (number, seed), those that failed included."""
        return set(self._finals())

    def _finals(self) -> dict[tuple[int, int], dict[str, Any]]:
        keys = [key for key in self.study.user_attrs if key.startswith(FINAL)]
        attrs = self.study.user_attrs
        return {(int(key.split(":")[1]), int(key.split(":")[2])): json.loads(attrs[key]) for key in keys}

    def add(self, record: Record, trial: FrozenTrial | None, values: Sequence[float]) -> None:
        """Keep a finished candidate: in `trial` if it is on the menu, else in one without parameters."""
        if not record.complete:
            trial = optuna.create_trial(state=TrialState.FAIL if record.failure else TrialState.PRUNED)
        elif trial is None:
            trial = optuna.create_trial(values=list(values))
        trial.set_user_attr(RECORD, json.dumps(record.to_dict()))
        trial.set_user_attr("placement", record.placement)
        self.study.add_trial(trial)

    def describe(self, about: Mapping[str, str]) -> None:
        """Keep how the study was run, last time, beside its identity."""
        write(self.folder / "study.json", json.dumps({"identity": self.identity, "about": about}, indent=2))

    def add_final(self, number: int, seed: int, fields: Mapping[str, Any]) -> None:
        """Keep what came of a final training with `seed`: error, images, seconds and micro_batches, or failure."""
        self.study.set_user_attr(f"{FINAL}{number}:{seed}", json.dumps(dict(fields)))


def _final_fields(by_seed: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a record that its final trainings add."""
    scored = {seed: fields for seed, fields in by_seed.items() if "error" in fields}
    failures = [fields["failure"] for fields in by_seed.values() if "failure" in fields]
    return {
        "test_seeds": tuple(scored),
        "test_errors": tuple(fields["error"] for fields in scored.values()),
        "test_images": max((fields["images"] for fields in scored.values()), default=None),
        "test_seconds": sum(fields["seconds"] for fields in scored.values()) if scored else None,
        "test_micro_batches": max((fields["micro_batches"] for fields in scored.values()), default=None),
        "test_failure": failures[0] if failures else "",
    }


def _latency_fields(kept: Sequence[float] | None) -> dict[str, Any]:
    return {} if kept is None else {"latency_overhead": kept[0], "latency_interval": tuple(kept[1:])}


def read_records(folder: Path) -> list[Record]:
    """The finished candidates of a study that may be running elsewhere; nothing is written. Raises UserError if there is no study."""
    database = folder / "study.db"
    if not database.is_file():
        raise UserError(f"{folder} holds no study.db", "name a study's folder")
    try:
        return list(Store(folder, _opened(folder), {}).records().values())
    except (*BROKEN, KeyError) as error:
        raise _unusable(database, error) from None


def _unusable(database: Path, error: Exception) -> UserError:
    return UserError(f"{database} cannot be used: {str(error.__cause__ or error).splitlines()[0]}", MEND)


def _opened(folder: Path, objectives: Sequence[str] = ()) -> optuna.Study:
    """The study in the folder's database; made for these objectives if it is not there."""
    # Optuna's SQLite storage commits each trial in one transaction: a kill leaves it whole.
    storage = URL.create("sqlite", database=str(folder / "study.db")).render_as_string(hide_password=False)
    if not objectives:
        return optuna.load_study(study_name="study", storage=storage)
    directions = [StudyDirection.MINIMIZE] * len(objectives)
    return optuna.create_study(study_name="study", storage=storage, directions=directions, load_if_exists=True)


def open_store(folder: Path, identity: Mapping[str, Any], objectives: Sequence[str]) -> Store:
    """Open the folder, made if need be. Raises UserError if it holds a study that differs in `identity`, or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _identity_in(folder)
        if before is None and (folder / "study.db").exists():
            raise UserError(f"{folder} holds a study.db without the study.json that says what it is", MEND)
        if before is None:
            write(folder / "study.json", json.dumps({"identity": identity}, indent=2))
        elif before != json.loads(json.dumps(identity)):
            raise UserError(
                f"{folder} holds a study that was run differently:\n{_difference(before, identity)}",
                "continue it with its own settings, or start a new one with --out another/folder",
            )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = _opened(folder, objectives)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
    except OSError as error:
        raise UserError(f"the study folder {str(folder)!r} cannot be used: {error.strerror or error}", "try another --out") from None
    except BROKEN as error:
        raise _unusable(folder / "study.db", error) from None
    return Store(folder, study, identity)


def _identity_in(folder: Path) -> dict[str, Any] | None:
    path = folder / "study.json"
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["identity"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: it is not the study.json of a run", MEND) from None


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    old, new = flat(before), flat(now)
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    return "\n".join(f"  {key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in changed)
