"""Where detection gets its data: `--data` in each of its forms."""

from pathlib import Path

from bam_search.errors import UserError
from bam_search.tasks.detection.annotated_source import annotated_source
from bam_search.tasks.detection.voc import is_voc, voc_annotated
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Source

FORMS = "a folder with Annotations/*.xml and JPEGImages/* (Pascal VOC)"
AS_IT_IS = Reading()
"""How data are read unless a study says otherwise."""


def locate(wanted: str, reading: Reading = AS_IT_IS) -> Source:
    """The source for `--data`; FORMS has what it may be. Raises UserError for anything else."""
    path = Path(wanted)
    if not path.exists():
        raise UserError(f"--data {wanted!r}: there is no such file or folder", FORMS)
    if path.is_dir() and is_voc(path):
        return annotated_source(path, voc_annotated(path), reading)
    raise UserError(f"--data {wanted!r} has no annotated pictures", FORMS)
