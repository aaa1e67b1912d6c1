"""Where detection gets its data: `--data` in each of its forms."""

from pathlib import Path

from bam_search.errors import UserError
from bam_search.model.load import Inputs
from bam_search.tasks.detection.annotated_source import annotated_source
from bam_search.tasks.detection.coco import coco_annotated, json_files
from bam_search.tasks.detection.matching import check_installed
from bam_search.tasks.detection.shapes import shapes_source
from bam_search.tasks.detection.task import Detection
from bam_search.tasks.detection.voc import is_voc, voc_annotated
from bam_search.tasks.pictures.walk import folders_in
from bam_search.tasks.reading import Reading
from bam_search.tasks.task import Source

FORMS = (
    "a folder in the form of Pascal VOC, with Annotations/*.xml and JPEGImages/*, or in that of "
    "COCO, with annotations/*.json and images/*; the path of such a JSON file; or generated"
)
GENERATED = "generated"
AS_IT_IS = Reading()
"""How data are read unless a study says otherwise."""


def task() -> Detection:
    """Detection on any annotated pictures, measured as COCO is."""
    return Detection(Inputs((3, 120, 160), 2), locate, "coco")


def locate(wanted: str, reading: Reading = AS_IT_IS) -> Source:
    """The source for `--data`; FORMS has what it may be. Raises UserError for anything else.

    There is no data set for 'auto', as none is small and everybody's.
    """
    check_installed()
    if wanted == GENERATED:
        return shapes_source()
    if wanted == "auto":
        raise UserError("detection has no data of its own: name yours with --data", FORMS)
    path = Path(wanted)
    if not path.exists():
        raise UserError(f"--data {wanted!r}: there is no such file or folder", FORMS)
    if path.is_dir() and is_voc(path):
        return annotated_source(path, path, voc_annotated(path), reading)
    if path.is_file() and path.suffix.lower() != ".json":
        raise UserError(f"--data {wanted!r} is no file of annotations", FORMS)
    if files := json_files(path):
        return annotated_source(path, *coco_annotated(path, files), reading)
    raise UserError(f"--data {wanted!r} has no annotated pictures", _below(path))


def _below(path: Path) -> str:
    """A hint: a folder in `path` that has annotations, or what is read."""
    for folder in folders_in(path):
        inside = path / folder.name
        if is_voc(inside) or json_files(inside):
            return f"did you mean {inside}?"
    if any(path.rglob("labels/*.txt")):
        return f"YOLO's labels/*.txt are not read: export the data in another form. {FORMS}"
    return FORMS
