"""Texts without the paths of the machine that they were written on.

A page travels, and a home folder's name is nobody's business. Of an absolute path the file's name
stays, of a file in a package or in Python's library what comes after that folder.
"""

import re
from dataclasses import replace

from bam_search.report.commands import Origin
from bam_search.report.payload import ReportContext
from bam_search.study.record import Record

QUOTED = re.compile(r"""(["'](?:[\w.-]+=)?)((?:/[^/"'\n=]+){2,}/?|[A-Za-z]:\\[^"'\n]+)(?=["'])""")
"""An absolute path in quotes, with a key or without; it may have spaces."""
BARE = re.compile(
    r"""(?: (?<=sqlite:///) | (?<=file://) | (?<![^\s"'=(,;\[]) )
    (?: (?:/[^\s/"'<>|:*?()\[\],;=]+){2,}/? | [A-Za-z]:(?:\\[^\s\\"'<>|:*?()\[\],;=]+)+ )""",
    re.VERBOSE,
)
"""An absolute path of two names or more. A regular expression of a placement is none."""
WORD = re.compile(r"^((?:[^/=]*=)?)((?:/[^/=,*]+){2}.*|[A-Za-z]:\\.*)$", re.DOTALL)
"""A word of a command that is an absolute path, or a key with one."""
LIBRARY = re.compile(r".*[/\\](?:site-packages|dist-packages|python3\.\d+)[/\\]")
PACKAGE = re.compile(r".*[/\\](?=bam_search[/\\].*\.py$)")
FOLDER = re.compile(r".*[/\\](?=[^/\\])")


def portable_text(text: str) -> str:
    """The text with names in place of absolute paths."""
    text = QUOTED.sub(lambda match: match[1] + _name(match[2]), text)
    return BARE.sub(lambda match: _name(match[0]), text)


def portable_word(word: str) -> str:
    """The same of a word of a command: the path in it may have spaces."""
    if "://" in word:
        return portable_text(word)
    return WORD.sub(lambda match: match[1] + _name(match[2]), word)


def portable_context(context: ReportContext) -> ReportContext:
    """The context, with names in place of absolute paths."""
    about = {key: portable_text(text) for key, text in context.about.items()}
    return replace(
        context,
        warning=portable_text(context.warning),
        state=portable_text(context.state),
        about=about,
        paper=replace(context.paper, net=portable_text(context.paper.net)),
        origin=context.origin and portable_origin(context.origin),
    )


def portable_origin(origin: Origin) -> Origin:
    """Where candidates come from, by names."""
    return replace(
        origin,
        folder=portable_word(origin.folder),
        space=portable_word(origin.space),
        data=portable_word(origin.data),
        weights=portable_word(origin.weights),
        modules=tuple(map(portable_word, origin.modules)),
    )


def portable_record(record: Record) -> Record:
    """The record, with names in place of absolute paths in its tracebacks."""
    if not (record.failure or record.test_failure):
        return record
    return replace(
        record,
        failure=portable_text(record.failure),
        test_failure=portable_text(record.test_failure),
    )


def _name(path: str) -> str:
    """What stays of a path: 'torch/nn/modules/conv.py', or 'cifar100.npz'."""
    for beginning in (LIBRARY, PACKAGE):
        if beginning.match(path):
            return beginning.sub("", path)
    return FOLDER.sub("", path).rstrip("/\\")
