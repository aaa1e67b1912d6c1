"""Where a study's trials are: in study.db in its folder, or in any SQL database that Optuna takes.

The tables are Optuna's; in a shared database the study has a name.
https://optuna.readthedocs.io/en/stable/reference/storages.html
"""

import contextlib
import json
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

# Optuna's own storage library
from sqlalchemy import URL, NullPool, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from bam_search.errors import RunError, UserError, first_line

BROKEN = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
DATABASE = "study.db"
EMBEDDED = "study"
"""The study's name in its own database."""
ATTRIBUTES = (
    "SELECT a.value_json FROM studies s "
    "JOIN trials t ON t.study_id = s.study_id "
    "JOIN trial_user_attributes a ON a.trial_id = t.trial_id "
    "WHERE s.study_name = :name AND a.key = :key ORDER BY t.trial_id"
)
UNFINISHED = (
    "SELECT t.trial_id, a.key, a.value_json FROM studies s "
    "JOIN trials t ON t.study_id = s.study_id "
    "JOIN trial_user_attributes a ON a.trial_id = t.trial_id "
    "WHERE s.study_name = :name AND t.state IN ('RUNNING', 'WAITING') ORDER BY t.trial_id"
)
LOCKS = {"postgresql": "SELECT pg_try_advisory_lock(hashtextextended(:name, 0))"}
"""Statements that lock a study in its database, until the connection ends.

They keep two drivers of one study apart that have different folders.
"""


@dataclass(frozen=True)
class StudyStorage:
    """A database, and the name that the study has in it."""

    url: URL
    name: str = EMBEDDED
    embedded: bool = False

    @classmethod
    def of(cls, folder: Path, storage: str | None, name: str) -> "StudyStorage":
        """The database that `--storage` names; without it study.db in the folder.

        Raises UserError if `storage` is no URL, or has a password.
        """
        if storage is None:
            # Not from a text, so that odd folder names need no quoting.
            return cls(URL.create("sqlite", database=str(folder / DATABASE)), EMBEDDED, True)
        try:
            url = make_url(storage)
        except (SQLAlchemyError, ValueError):
            raise UserError(
                f"--storage {storage!r} is no URL of a database",
                "for example postgresql://user@host/database",
            ) from None
        if url.password or "password" in url.query:  # the report says how it was run
            raise UserError(
                "--storage has a password in it, and commands are written down",
                "put it into PGPASSWORD or ~/.pgpass",
            )
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        return cls(url, name)

    @property
    def text(self) -> str:
        """The URL."""
        return self.url.render_as_string()

    def exists(self) -> bool:
        """Whether the study exists. Raises UserError if the database cannot be used."""
        if self.embedded and not Path(str(self.url.database)).exists():
            return False
        with self.usable():
            return self.name in optuna.get_all_study_names(self._storage())

    def open(self) -> optuna.Study:
        """The study, which exists."""
        return optuna.load_study(study_name=self.name, storage=self._storage())

    def attributes(self, key: str) -> list[str]:
        """The user attribute `key`, a text, of each trial of the study that has it, in order.

        It is read straight from Optuna's tables: Optuna itself builds whole trials, which takes
        seconds and 300 MiB for 10,000 of them.
        """
        return [json.loads(row[0]) for row in self._rows(ATTRIBUTES, key=key)]

    def unfinished(self) -> dict[int, dict[str, Any]]:
        """The user attributes of each trial that runs or waits, by Optuna's id of it."""
        found: dict[int, dict[str, Any]] = {}
        for trial_id, key, value in self._rows(UNFINISHED):
            found.setdefault(trial_id, {})[key] = json.loads(value)
        return found

    def _rows(self, statement: str, **values: str) -> Sequence[Sequence[Any]]:
        """The rows that an SQL statement about the study finds."""
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            return connection.execute(text(statement), {"name": self.name, **values}).all()

    def create(
        self, objectives: Sequence[str], maximised: Collection[str], attributes: dict[str, str]
    ) -> None:
        """Create the study; in a database of its own it is created completely or not at all.

        `maximised` are those of the objectives that are better when larger. Raises UserError where
        that database's file is there already, made by another program.
        """
        if not self.embedded:
            self._create(objectives, maximised, attributes)
            return
        final = Path(str(self.url.database))
        if final.exists():
            raise UserError(
                f"{final} is a database that bam_search did not create", "try another --out"
            )
        beside = final.with_suffix(".new")
        beside.unlink(missing_ok=True)
        try:
            storage = StudyStorage(self.url.set(database=str(beside)), self.name)
            storage._create(objectives, maximised, attributes)
            beside.replace(final)
        finally:
            beside.unlink(missing_ok=True)

    def _create(
        self, objectives: Sequence[str], maximised: Collection[str], attributes: dict[str, str]
    ) -> None:
        directions = [
            StudyDirection.MAXIMIZE if key in maximised else StudyDirection.MINIMIZE
            for key in objectives
        ]
        study = optuna.create_study(
            study_name=self.name, storage=self._storage(), directions=directions
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
        for key, value in attributes.items():
            study.set_user_attr(key, value)

    def delete(self) -> None:
        """Delete a study in a shared database."""
        optuna.delete_study(study_name=self.name, storage=self._storage())

    def rename(self, name: str) -> None:
        """Give a study in a shared database another name: a copy, then the old one is deleted."""
        storage = self._storage()
        optuna.copy_study(
            from_study_name=self.name, from_storage=storage, to_storage=storage, to_study_name=name
        )
        self.delete()

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Hold the study in its database for as long as the context lasts.

        Raises UserError if another driver does.
        """
        lock = LOCKS.get(self.url.get_backend_name())
        if lock is None:  # the folder has a lock of its own
            yield
            return
        with self.usable():
            engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            connection = engine.connect()
            held = connection.execute(text(lock), {"name": self.name}).scalar()
        try:
            if not held:
                raise UserError(
                    f"the study {self.name!r} in {self.text} is driven by another process",
                    "give this one another --name",
                )
            yield
        finally:
            connection.close()

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Turn a database's errors into UserError, and those of a full disk into RunError."""
        try:
            yield
        except ImportError:
            raise UserError(
                f"{self.text} needs the database's Python package",
                "pip install '.[postgresql]' for PostgreSQL",
            ) from None
        except (*BROKEN, RuntimeError) as error:  # RuntimeError: tables of another Optuna version
            where = str(self.url.database) if self.embedded else self.text
            if any(word in str(error) for word in ("disk is full", "disk I/O error")):
                raise RunError(f"{where} cannot be written: {said(error)}") from None
            hint = (
                "restore it, or start a new study with --out another/folder"
                if self.embedded
                else "is the server up, and the URL right?"
            )
            raise UserError(f"{where} cannot be used: {said(error)}", hint) from None

    def _storage(self) -> RDBStorage:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Writes are seconds or minutes apart. Each has a connection of its own, so that none is
        # left open, idle, or broken because a server restarted.
        url = self.url.render_as_string(hide_password=False)
        return RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def said(error: Exception) -> str:
    """The first line of a database's error, which Optuna wraps."""
    return first_line(error.__cause__ or error)
