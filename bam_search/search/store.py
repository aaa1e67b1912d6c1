"""The store: a study's finished candidates, kept as trials of an Optuna study in its folder.

    study.db      one trial a candidate, with its record as an attribute once it is finished, in
                  Optuna's SQLite storage, which optuna-dashboard opens; with --storage the trials
                  are in the database that it names
    study.json    the identity (settings, data and device variant), which a continued run must
                  match, and facts about the last run
    records.csv   every record
    front.csv     the Pareto front
    index.html    the report
    checkpoints/  interrupted trainings

records.csv, front.csv and index.html are derived from the trials. Each of these files, and
study.json, is written atomically.

A trial runs for as long as its candidate does. One that was cut off waits, and runs again, as the
same trial, when its candidate is trained again. Trials are written to Optuna's storage, not by its
`ask`, which takes a transaction for each parameter and first reads all trials (LOG.md).
"""

import contextlib
import errno
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from bam_search.config import flat
from bam_search.errors import RunError, UserError
from bam_search.files import write
from bam_search.search.storage import BROKEN, DATABASE, StudyStorage, said
from bam_search.study.record import LATENCIES, METRIC, RECORDS_FILE, STUDY_FILE, Record

RECORD_KEY = "record"
CANDIDATE = "candidate"
PLACEMENT = "placement"
FINAL_PREFIX = "final:"
LATENCY_PREFIXES = {
    "latency_overhead": "latency:",
    "deployed_latency_overhead": "deployed_latency:",
}
"""The beginning of the attribute that has a candidate's measured latency, by its field."""
INCREMENTS_KEY = "latency_increments"
IDENTITY_KEY = "identity"
REFERENCES_KEY = "references"
"""The key of the identity with the text of each reference by its name."""
MODULE_FILES_KEY = "module_files"
"""The key of the identity with the hash of the file of each attention module of the user's."""
SOURCE_KEY = "source"
"""The key of study.json with what --data said."""
PLAN_KEY = "plan"
"""The key of study.json with the plan for a budget."""
CHECKPOINTS = "checkpoints"
OF_STUDY = (
    *(STUDY_FILE, RECORDS_FILE, "front.csv", "index.html", CHECKPOINTS, "backbone.pt"),
    *(DATABASE, f"{DATABASE}-*", "candidate-*"),
)
"""What lies in a study's folder that is the study's, by pattern."""
HINT = (
    "continue it with its own settings, give this one a --name of its own, "
    "or set the old one aside with --force-new"
)


@dataclass(frozen=True)
class Begun:
    """A candidate that was begun and is not finished.

    `trial_id` is Optuna's id of its trial, which `runs` if this process has begun it.
    """

    trial_id: int
    placement: str
    runs: bool


class Store:
    """An open study with one writer.

    Its records are read from the trials once, when it is opened.
    """

    def __init__(
        self,
        folder: Path,
        study: optuna.Study,
        identity: Mapping[str, Any],
        storage: StudyStorage | None = None,
        texts: Iterable[str] = (),
        begun: Mapping[int, Begun] | None = None,
    ) -> None:
        self.folder = folder
        self._study = study
        self._identity = identity
        self._storage = storage
        records = [Record.from_dict(json.loads(text)) for text in texts]
        self._records = {record.number: record for record in records}
        self._begun = dict(begun or {})
        self._finals: dict[int, dict[int, Mapping[str, Any]]] = {}
        for key, value in study.user_attrs.items():
            if key.startswith(FINAL_PREFIX):
                number, seed = map(int, key.removeprefix(FINAL_PREFIX).split(":"))
                self._finals.setdefault(number, {})[seed] = json.loads(value)
            for field, prefix in LATENCY_PREFIXES.items():
                if key.startswith(prefix):
                    self._timed(int(key.removeprefix(prefix)), field, json.loads(value))
        for number in self._finals:
            self._tested(number)

    def records(self) -> dict[int, Record]:
        """The finished candidates by number, with those test scores that are known."""
        return dict(sorted(self._records.items()))

    def final_seeds(self) -> set[tuple[int, int]]:
        """The final trainings that are done, also those that failed, as (number, seed)."""
        return {(number, seed) for number, by_seed in self._finals.items() for seed in by_seed}

    def is_running(self, number: int) -> bool:
        """Whether this process has begun a candidate, and not finished it."""
        return number in self._begun and self._begun[number].runs

    def begin(self, record: Record, trial: FrozenTrial) -> None:
        """Keep that a candidate is under way from now on, in a running `trial`.

        One that was cut off goes on in the trial that it had, unless it has another placement now.
        Raises RunError if the study cannot be written.
        """
        left = self._begun.get(record.number)
        with self._writing():
            if left and left.placement == record.placement:
                trial_id = left.trial_id
                self._set_state(trial_id, TrialState.RUNNING)  # Optuna notes the time
            else:
                if left:
                    self._set_state(left.trial_id, TrialState.FAIL)
                trial.set_user_attr(CANDIDATE, record.number)
                trial.set_user_attr(PLACEMENT, record.placement)
                trial_id = self._trials.create_new_trial(self._study._study_id, trial)
        self._begun[record.number] = Begun(trial_id, record.placement, True)

    def leave(self) -> None:
        """Keep that candidates under way are trained no more for now: their trials wait.

        A candidate whose record was written when an interruption came counts as finished; the next
        store finishes its trial. Raises RunError if the study cannot be written.
        """
        with self._writing():
            for number, begun in list(self._begun.items()):
                text = self._trials.get_trial(begun.trial_id).user_attrs.get(RECORD_KEY)
                if text is not None:
                    del self._begun[number]
                    self._records[number] = Record.from_dict(json.loads(text))
                    continue
                self._set_state(begun.trial_id, TrialState.WAITING)
                self._begun[number] = replace(begun, runs=False)

    def add(self, record: Record, values: Sequence[float]) -> None:
        """Keep a finished candidate as an attribute of its trial.

        One that is kept already, when an interruption came before this process knew it, stays as it
        is. One that was not begun gets a trial without parameters. `values` are those of the
        objectives, as they were measured, if it is complete. Raises RunError if the study cannot
        be written.
        """
        begun, text = self._begun.get(record.number), json.dumps(record.to_dict())
        with self._writing():
            if begun is not None:
                if not self._trials.get_trial(begun.trial_id).state.is_finished():
                    self._trials.set_trial_user_attr(begun.trial_id, RECORD_KEY, text)
                    self._set_state(begun.trial_id, _state_of(record), values)
            else:
                attributes = {PLACEMENT: record.placement, RECORD_KEY: text}
                self._study.add_trial(
                    optuna.create_trial(
                        state=_state_of(record), values=list(values) or None, user_attrs=attributes
                    )
                )
        self._begun.pop(record.number, None)
        self._records[record.number] = record

    def add_final(self, number: int, seed: int, fields: Mapping[str, Any]) -> None:
        """Keep what came of a final training with `seed`.

        `fields` are metric, standard_error, samples, seconds and micro_batches, and what else was
        measured, or failure. Raises RunError if the study cannot be written.
        """
        with self._writing():
            self._study.set_user_attr(f"{FINAL_PREFIX}{number}:{seed}", json.dumps(dict(fields)))
        self._finals.setdefault(number, {})[seed] = fields
        self._tested(number)

    def add_latency(
        self, number: int, field: str, overhead: float, interval: tuple[float, float]
    ) -> None:
        """Keep a candidate's measured latency above the backbone's, in percent, with its interval.

        `field` is one of LATENCIES. Raises RunError if the study cannot be written.
        """
        with self._writing():
            key = f"{LATENCY_PREFIXES[field]}{number}"
            self._study.set_user_attr(key, json.dumps([overhead, *interval]))
        self._timed(number, field, (overhead, *interval))

    def increments(self) -> dict[str, Any] | None:
        """The fields of the LatencyTable that was measured when the study began; None without."""
        text = self._study.user_attrs.get(INCREMENTS_KEY)
        return None if text is None else dict(json.loads(text))

    def add_increments(self, table: Mapping[str, Any]) -> None:
        """Keep the fields of a LatencyTable: a continued study then proposes the same.

        Raises RunError if the study cannot be written.
        """
        with self._writing():
            self._study.set_user_attr(INCREMENTS_KEY, json.dumps(table))

    def describe(
        self, about: Mapping[str, str], source: str, plan: Mapping[str, Any] | None = None
    ) -> None:
        """Write study.json: the identity, and how the study was run last.

        `source` is what --data said, `plan` what the study does with its budget, if it has one.
        """
        table = {
            "identity": self._identity,
            **_storage_of(self._storage),
            SOURCE_KEY: source,
            **({PLAN_KEY: plan} if plan else {}),
            "about": about,
        }
        write(self.folder / STUDY_FILE, json.dumps(table, indent=2))

    @property
    def _trials(self) -> BaseStorage:
        """Optuna's storage of the trials."""
        return self._study._storage

    def _set_state(self, trial_id: int, state: TrialState, values: Sequence[float] = ()) -> None:
        """Change a trial's state; Optuna notes the time at which it starts or is finished."""
        self._trials.set_trial_state_values(trial_id, state, list(values) or None)

    def _tested(self, number: int) -> None:
        """Bring a record up to date with its final trainings."""
        by_seed = dict(sorted(self._finals[number].items()))
        self._records[number] = replace(self._records[number], **_final_fields(by_seed))

    def _timed(self, number: int, field: str, latency: Sequence[float]) -> None:
        """Bring a record up to date with its (overhead, low, high)."""
        overhead, *interval = latency
        known: dict[str, Any] = {field: overhead, LATENCIES[field]: tuple(interval)}
        self._records[number] = replace(self._records[number], **known)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a database's errors into RunError."""
        try:
            yield
        except BROKEN as error:
            shared = self._storage is not None and not self._storage.embedded
            where = self._storage.text if self._storage and shared else self.folder
            raise RunError(
                f"the study in {where} cannot be written: {said(error)}",
                "what was finished before is kept",
            ) from None


def _state_of(record: Record) -> TrialState:
    """The state of a finished candidate's trial."""
    if record.complete:
        return TrialState.COMPLETE
    return TrialState.FAIL if record.failure else TrialState.PRUNED


def _final_fields(by_seed: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a record that its final trainings add."""
    scored = {seed: fields for seed, fields in by_seed.items() if METRIC in fields}
    failures = [fields["failure"] for fields in by_seed.values() if "failure" in fields]

    def column(name: str) -> list[Any]:
        return [fields[name] for fields in scored.values()]

    return {
        "test_seeds": tuple(scored),
        "test_metrics": tuple(column(METRIC)),
        "train_metrics": _train_metrics(list(scored.values())),
        "test_standard_errors": tuple(column("standard_error")),
        "test_samples": max(column("samples"), default=None),
        **_more_fields(list(scored.values())),
        "test_seconds": sum(column("seconds")) if scored else None,
        "test_micro_batches": max(column("micro_batches"), default=None),
        "test_failure": failures[0] if failures else "",
    }


def _train_metrics(finals: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """The metric on training samples, where all final trainings have it."""
    known = tuple(fields["train_metric"] for fields in finals if "train_metric" in fields)
    return known if len(known) == len(finals) else ()


def _more_fields(finals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of what a task measures beside its metric, where all final trainings have it."""
    by_title = [fields.get("further", {}) for fields in finals]
    titles = [
        title for title in next(iter(by_title), {}) if all(title in each for each in by_title)
    ]
    by_class = [tuple(fields.get("by_class", ())) for fields in finals]
    samples = [tuple(fields.get("class_samples", ())) for fields in finals]
    return {
        "test_further": {title: tuple(each[title] for each in by_title) for title in titles},
        "test_by_class": tuple(by_class) if all(by_class) else (),
        "test_class_samples": next(iter(samples), ()) if all(by_class) else (),
    }


def _storage_of(storage: StudyStorage | None) -> dict[str, Any]:
    """What study.json says about a shared database with the trials; never a password."""
    if storage is None or storage.embedded:
        return {}
    return {"storage": {"url": storage.text, "name": storage.name}}


def read_records(folder: Path) -> list[Record]:
    """The finished candidates of a study, as `read_store` reads them."""
    return list(read_store(folder).records().values())


def has_identity(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether there is a study in `folder` with this identity, as study.json says."""
    with _usable(folder):
        return read_described(folder).get("identity") == _as_read_back(identity)


def read_store(folder: Path) -> Store:
    """The store of a study, to read only: the study may be running elsewhere.

    Raises UserError if there is no study.
    """
    table = read_described(folder).get("storage") or {}
    storage = StudyStorage.of(folder, table.get("url"), table.get("name", ""))
    if not storage.exists():
        raise UserError(f"{folder} holds no study.db", "name a study's folder")
    with storage.usable(), _ours(storage, "name a study's folder"):
        return Store(folder, storage.open(), {}, storage, storage.attributes(RECORD_KEY))


def open_store(
    folder: Path,
    identity: Mapping[str, Any],
    objectives: Sequence[str],
    storage: StudyStorage | None = None,
    maximised: Collection[str] = (),
) -> Store:
    """The store of a study, which is made if it does not exist; by default in the folder.

    `maximised` are those of the objectives that are better when larger. A study that has searched
    nothing yet takes further references, after its own. Raises UserError if the study was run with
    another `identity`, or cannot be used, and RunError if the disk is full or broken.
    """
    storage = storage or StudyStorage.of(folder, None, "")
    identity = _as_read_back(identity)
    with _usable(folder), _ours(storage, HINT):
        folder.mkdir(parents=True, exist_ok=True)
        described = read_described(folder)
        if described:
            _check_described(folder, described, identity, storage)
        _check_no_report(folder, storage)
        _create_if_missing(storage, identity, objectives, maximised)
        store = _opened(folder, identity, objectives, storage)
        (folder / CHECKPOINTS).mkdir(exist_ok=True)
        if not described:
            store.describe({}, "")
        return store


def _check_no_report(folder: Path, storage: StudyStorage) -> None:
    """Raise UserError for a report whose trials are elsewhere: a new study would overwrite it."""
    if (folder / RECORDS_FILE).exists() and not storage.exists():
        raise UserError(
            f"{folder} holds a report, and not the trials that it was made of ({storage.text})",
            "name another folder with --out, or set the report aside with --force-new",
        )


def _as_read_back(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as JSON has it: lists instead of tuples."""
    return dict(json.loads(json.dumps(identity)))


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Turn a folder's errors into UserError, and those of a full or broken disk into RunError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise RunError(
                f"the study folder {str(folder)!r} cannot be written: {error.strerror}"
            ) from None
        raise UserError(
            f"the study folder {str(folder)!r} cannot be used: {error.strerror or error}",
            "try another --out",
        ) from None


@contextlib.contextmanager
def _ours(storage: StudyStorage, hint: str) -> Iterator[None]:
    """Turn what the trials of another program raise into UserError."""
    try:
        yield
    except KeyError:
        message = f"{storage.text} holds trials that bam_search did not write"
        raise UserError(message, hint) from None


def _opened(
    folder: Path, identity: Mapping[str, Any], objectives: Sequence[str], storage: StudyStorage
) -> Store:
    """The store of a study that exists, which may have further references now.

    Raises UserError if it was run with another identity.
    """
    with storage.usable():
        study = storage.open()
        where = folder if storage.embedded else storage.text
        before = _identity_of(study, storage)
        _check(where, before, identity)
        left = {
            trial_id: attributes
            for trial_id, attributes in storage.unfinished().items()
            if CANDIDATE in attributes  # others were asked for by hand
        }
        begun = {
            attributes[CANDIDATE]: Begun(trial_id, attributes[PLACEMENT], False)
            for trial_id, attributes in left.items()
        }
        store = Store(folder, study, identity, storage, storage.attributes(RECORD_KEY), begun)
        if before != identity:
            _check_only_references(where, len(before[REFERENCES_KEY]), store.records(), begun)
            study.set_user_attr(IDENTITY_KEY, json.dumps(identity))
        _put_in_order(
            store, [kept[RECORD_KEY] for kept in left.values() if RECORD_KEY in kept], objectives
        )
        return store


def _put_in_order(store: Store, texts: Sequence[str], objectives: Sequence[str]) -> None:
    """Finish the trials of the records in `texts`, and have those of other candidates wait.

    They run for ever where a driver died, with their record if it died while it wrote it.
    """
    for text in texts:
        record = Record.from_dict(json.loads(text))
        store.add(record, [record.value(key) for key in objectives] if record.complete else [])
    store.leave()


def _create_if_missing(
    storage: StudyStorage,
    identity: Mapping[str, Any],
    objectives: Sequence[str],
    maximised: Collection[str],
) -> None:
    """Create the study in its database unless it is there already."""
    if not storage.embedded and storage.exists() and _unfinished(storage):
        storage.delete()  # its maker died before it was complete; this process has the lock
    if not storage.exists():
        with storage.usable():
            storage.create(objectives, maximised, {IDENTITY_KEY: json.dumps(identity)})


def _unfinished(storage: StudyStorage) -> bool:
    """Whether the making of the study was cut off."""
    with storage.usable():
        study = storage.open()
        return IDENTITY_KEY not in study.user_attrs and not study.get_trials(deepcopy=False)


def archive(folder: Path, storage: StudyStorage) -> list[str]:
    """Rename what there is of a study, so that a new one can take its place; return the new names.

    Other files remain in the folder: the driver's, and what a user has there.
    """
    folder = folder.resolve()  # "." has no name
    mark = time.strftime("before-%Y%m%d-%H%M%S")
    moved = []
    if not storage.embedded and storage.exists():
        with storage.usable():
            storage.rename(f"{storage.name}-{mark}")
        moved.append(f"{storage.name}-{mark} in {storage.text}")
    if any((folder / name).exists() for name in (STUDY_FILE, DATABASE, RECORDS_FILE)):
        aside = folder.with_name(f"{folder.name}-{mark}")
        aside.mkdir()
        # The trials move last: if it is cut off before, the study is still there.
        for path in sorted(folder.iterdir(), key=lambda path: path.name == DATABASE):
            if any(path.match(pattern) for pattern in OF_STUDY):
                path.rename(aside / path.name)
        moved.append(str(aside))
    return moved


def read_described(folder: Path) -> dict[str, Any]:
    """The table in study.json, empty without that file. Raises UserError if it is damaged."""
    path = folder / STUDY_FILE
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {**table, "identity": dict(table["identity"])}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is damaged: it is not the study.json of a run",
            "restore it, or set the study aside with --force-new",
        ) from None


def _identity_of(study: optuna.Study, storage: StudyStorage) -> dict[str, Any]:
    """The identity with which the study was made. Raises UserError if it has none."""
    if IDENTITY_KEY not in study.user_attrs:
        raise UserError(
            f"{storage.text} holds a study {storage.name!r} "
            "that is none of this version of bam_search",
            HINT,
        )
    return dict(json.loads(study.user_attrs[IDENTITY_KEY]))


def _check_described(
    folder: Path, described: Mapping[str, Any], identity: Mapping[str, Any], storage: StudyStorage
) -> None:
    """Raise UserError if study.json is about another identity, or another database."""
    there = dict(described["identity"])
    if "storage" in described:
        there["storage"] = described["storage"]
    _check(folder, there, {**identity, **_storage_of(storage)})


def _check(where: object, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError, with every difference, if the identities differ in more than what is new."""
    old, new = flat(before), flat(_without_further(before, now))
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if changed:
        lines = "\n".join(
            f"  {key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in changed
        )
        raise UserError(f"{where} holds a study that was run differently:\n{lines}", HINT)


def _without_further(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What a study is `now`, without the references that follow those of `before`.

    Nor has it the user's modules that are new, of which these references may be.
    """
    old, new = before.get(REFERENCES_KEY, {}), now.get(REFERENCES_KEY, {})
    if old == new or list(new.items())[: len(old)] != list(old.items()):
        return dict(now)
    further = set(now.get(MODULE_FILES_KEY, {})) - set(before.get(MODULE_FILES_KEY, {}))
    files = _without(now.get(MODULE_FILES_KEY, {}), further)
    rest = {**_without(now, {MODULE_FILES_KEY}), REFERENCES_KEY: old}
    if "search" in now:
        plan = now["search"]
        rest["search"] = {**plan, "modules": _without(plan["modules"], further)}
    return {**rest, MODULE_FILES_KEY: files} if files else rest


def _without(table: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """The table without some of its keys."""
    return {key: value for key, value in table.items() if key not in keys}


def _check_only_references(
    where: object, end: int, records: Mapping[int, Record], begun: Collection[int]
) -> None:
    """Raise UserError if a study with further references now has begun to search.

    What it searches has the numbers that come after its references, from `end` on at the latest.
    """
    searched = any(record.is_searched for record in records.values())
    if searched or any(number >= end for number in begun):
        raise UserError(
            f"{where} holds a study that has searched, so it takes no further references",
            "give this one a --name of its own; `compare` shows both on one page",
        )
