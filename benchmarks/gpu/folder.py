"""The folder of results: at most eight files, written after each step.

A second call continues from them.
"""

import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bam_search.errors import UserError
from bam_search.files import beginning, write
from benchmarks.gpu.parts import now
from benchmarks.gpu.runner import Outcome
from benchmarks.gpu.stages import FIGURES, KERNELS, STAGES

SUMMARY, LOG, ARCHIVE = "summary.txt", "log.txt", "study.tar.gz"
PAGES = ("index.html", "records.csv", "front.csv")
NAMES = (SUMMARY, FIGURES, KERNELS, LOG, ARCHIVE, *PAGES)
LARGEST = 16 * 2**20
"""Bytes of the largest file that is kept."""
LONGEST_LOG = 4 * 2**20


@dataclass
class Folder:
    """The results in a folder.

    `about` is this call's machine. By stage it has what came of it, when and on which device.
    """

    path: Path
    about: Mapping[str, Any]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    where: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, about: Mapping[str, Any]) -> "Folder":
        """The folder, made if it is not there.

        Raises UserError if it is not one of this command's, or of another kind of run.
        """
        path.mkdir(parents=True, exist_ok=True)
        _tidy(path)
        foreign = sorted(item.name for item in path.iterdir() if item.name not in NAMES)
        if foreign:
            raise UserError(
                f"--out {path} holds {foreign[0]!r}, which is not of this command",
                "name an empty folder",
            )
        folder = cls(path, about)
        for name in (FIGURES, KERNELS):
            if (path / name).exists():
                folder._read(json.loads((path / name).read_text()))
        return folder

    def _read(self, kept: Mapping[str, Any]) -> None:
        for key in ("kind", "tiny"):
            if kept[key] != self.about[key]:
                raise UserError(
                    f"--out {self.path} has results of another kind of run: "
                    f"{key} was {kept[key]}, and is {self.about[key]}",
                    "name another folder",
                )
        for name, stage in kept["stages"].items():
            self.where[name] = {
                key: stage.pop(key) for key in ("date", "device", "limit", "seconds")
            }
            self.outcomes[name] = Outcome(**stage)

    def begin(self, name: str, limit: float) -> Outcome:
        """What is known of a stage that begins now, here."""
        outcome = self.outcomes.setdefault(name, Outcome())
        self.where[name] = {
            "date": now(),
            "device": self.about["device"],
            "limit": round(limit),
            "seconds": 0.0,
        }
        return outcome

    def known(self) -> dict[str, dict[str, Any]]:
        """What was found, by stage and part."""
        return {name: outcome.found() for name, outcome in self.outcomes.items()}

    def keep(self) -> None:
        """Write what is known."""
        for file in (FIGURES, KERNELS):
            names = [
                stage.name for stage in STAGES if stage.file == file and stage.name in self.outcomes
            ]
            stages = {name: {**self.where[name], **asdict(self.outcomes[name])} for name in names}
            write(self.path / file, json.dumps({**self.about, "stages": stages}, indent=1) + "\n")

    def take_study(self, study: Path) -> None:
        """Copy a study's tables and page here, and the study itself as an archive.

        Trainings in progress are left out.
        """
        if not (study / "study.db").exists():
            return
        for name in PAGES:
            if (study / name).exists() and (study / name).stat().st_size <= LARGEST:
                shutil.copyfile(study / name, self.path / name)
        with tarfile.open(self.path / ARCHIVE, "w:gz") as archive:
            archive.add(
                study,
                "study",
                filter=lambda info: None if info.name == "study/checkpoints" else info,
            )
        if (self.path / ARCHIVE).stat().st_size > LARGEST:
            (self.path / ARCHIVE).unlink()

    def give_study(self, into: Path) -> None:
        """Unpack the study that is kept here, if there is one, into `into`/study."""
        if (self.path / ARCHIVE).exists():
            with tarfile.open(self.path / ARCHIVE) as archive:
                archive.extractall(into, filter="data")

    def drop_study(self) -> None:
        """Forget the study."""
        for name in (ARCHIVE, *PAGES):
            (self.path / name).unlink(missing_ok=True)

    def shorten_log(self) -> None:
        """Keep the end of a long log."""
        log = self.path / LOG
        if log.exists() and log.stat().st_size > LONGEST_LOG:
            write(
                log,
                "[the beginning is left out]\n"
                + log.read_bytes()[-LONGEST_LOG // 2 :].decode(errors="replace"),
            )


def _tidy(path: Path) -> None:
    """Remove what a killed call left half written."""
    for name in NAMES:
        for half in path.glob(f"{beginning(path / name)}*"):
            half.unlink()
