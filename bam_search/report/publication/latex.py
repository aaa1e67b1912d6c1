"""Text for LaTeX, and the environment of a figure."""

import re
import textwrap
from pathlib import Path

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "–": "--",
        "−": "$-$",
        "…": r"\ldots{}",
        "²": r"\textsuperscript{2}",
    }
)
"""What LaTeX has for characters that it reads otherwise."""
GRAPHICS = (".pdf", ".png")
"""The files that pdflatex shows."""
AT_MOST_A_LINE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
"""What makes a box as wide as the line if it is wider; it needs the package graphicx."""
HEAD = 12
"""About how many characters a line of a column's head has."""
ENVIRONMENTS = {"column": "figure", "page": "figure*"}
"""The environment of a figure, by its width."""


def escaped(text: str) -> str:
    """The text for LaTeX; hyphens before digits are minus signs."""
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text.translate(LATEX))


def stacked(head: str) -> str:
    """The head of a column of numbers, in several lines."""
    lines = textwrap.wrap(head, HEAD, break_long_words=False)
    text = r"\\".join(map(escaped, lines))
    return rf"\shortstack[r]{{{text}}}"


def label(kind: str, name: str) -> str:
    """`\\label{tab:placement}`, of a kind of float and the name of what is in it."""
    return rf"\label{{{kind}:{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}}}"


def figure_environment(name: str, caption: str, width: str) -> str:
    """The figure in the file `name`, with its caption; `width` is one of ENVIRONMENTS."""
    environment = ENVIRONMENTS[width]
    lines = [
        r"% \usepackage{graphicx}",
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\includegraphics[width=\linewidth]{{{name}}}",
        rf"\caption{{{escaped(caption)}}}",
        label("fig", Path(name).stem),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines)
