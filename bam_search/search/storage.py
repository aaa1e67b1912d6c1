"""Where a study's trials lie: in study.db in its folder, or in any SQL database that Optuna takes,
under the study's name. Optuna's tables.

https://optuna.readthedocs.io/en/stable/reference/storages.html
"""

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import URL, NullPool, create_engine, make_url, text  # Optuna's own storage library
from sqlalchemy.exc import SQLAlchemyError

from bam_search.errors import RunError, UserError, first_line

BROKEN = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
DATABASE = "study.db"
EMBEDDED = "study"
"""The study's name in its own database."""
ATTRIBUTES = (
    "SELECT a.value_json FROM studies s JOIN trials t ON t.study_id = s.study_id JOIN trial_user_attributes a ON a.trial_id = t.trial_id "
    "WHERE s.study_name = :name AND a.key = :key ORDER BY t.trial_id"
)
LOCKS = {"postgresql": "SELECT pg_try_advisory_lock(hashtextextended(:name, 0))"}
"""Where a database keeps two drivers of one study apart, whatever their folders: a lock that ends
with its connection.
"""


@dataclass(frozen=True)
class StudyStorage:
    """A database, and the name that the study has in it."""

    url: URL
    name: str = EMBEDDED
    embedded: bool = False

    @classmethod
    def of(cls, folder: Path, storage: str | None, name: str) -> "StudyStorage":
        """The place that `--storage` names, study.db in the folder without it. Raises UserError."""
        if storage is None:
            # Made by parts, so that odd folder names need no quoting.
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
        return cls(
            url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url,
            name,
        )

    @property
    def text(self) -> str:
        """The URL."""
        return self.url.render_as_string()

    def exists(self) -> bool:
        """Whether the study is there. Raises UserError if the database cannot be asked."""
        if self.embedded and not Path(str(self.url.database)).exists():
            return False
        with self.usable():
            return self.name in optuna.get_all_study_names(self._storage())

    def open(self) -> optuna.Study:
        """The study, which exists."""
        return optuna.load_study(study_name=self.name, storage=self._storage())

    def attributes(self, key: str) -> list[str]:
        """What each trial of the study, in order, has as its user attribute `key`, a text.

        Straight from Optuna's tables: its own way builds all there is to each trial, which takes
        seconds and 300 MiB for 10,000 of them.
        """
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            return [
                json.loads(row[0])
                for row in connection.execute(text(ATTRIBUTES), {"name": self.name, "key": key})
            ]

    def create(self, objectives: Sequence[str], attributes: dict[str, str]) -> None:
        """Make the study, whole or not at all where it has a database of its own."""
        if not self.embedded:
            self._create(objectives, attributes)
            return
        final = Path(str(self.url.database))
        beside = final.with_suffix(".new")
        beside.unlink(missing_ok=True)
        try:
            StudyStorage(self.url.set(database=str(beside)), self.name)._create(
                objectives, attributes
            )
            beside.replace(final)
        finally:
            beside.unlink(missing_ok=True)

    def _create(self, objectives: Sequence[str], attributes: dict[str, str]) -> None:
        directions = [StudyDirection.MINIMIZE] * len(objectives)
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
            connection = create_engine(
                self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT"
            ).connect()
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
        """Turn what a database says against being used into a UserError."""
        try:
            yield
        except ImportError:
            raise UserError(
                f"{self.text} needs the database's Python package",
                "pip install '.[postgresql]' for PostgreSQL",
            ) from None
        except (*BROKEN, RuntimeError) as error:  # Optuna's word for tables of another version
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
        # Writes are minutes apart: to a server a connection each, so that none is idle, or was
        # dropped when it restarted.
        pool = {} if self.embedded else {"poolclass": NullPool}
        return RDBStorage(self.url.render_as_string(hide_password=False), engine_kwargs=pool)


def said(error: Exception) -> str:
    """The first line of what a database said, which Optuna wraps."""
    return first_line(error.__cause__ or error)
