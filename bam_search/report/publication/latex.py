"""Text for LaTeX, and the environment of a figure."""

import re

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
ENVIRONMENTS = {"column": "figure", "page": "figure*"}
"""The environment of a figure, by its width."""


def escaped(text: str) -> str:
    """The text for LaTeX; hyphens before digits are minus signs."""
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text.translate(LATEX))


def figure_environment(name: str, caption: str, width: str) -> str:
    """The figure in the file `name`, with its caption; `width` is one of ENVIRONMENTS."""
    environment = ENVIRONMENTS[width]
    lines = [
        r"% \usepackage{graphicx}",
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\includegraphics{{{name}}}",
        rf"\caption{{{escaped(caption)}}}",
        r"\label{fig:bam-search}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines)
