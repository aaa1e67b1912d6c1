"""A page from a template in templates/: one HTML file that opens offline.

All text is escaped; the only HTML that enters a page unescaped is what this file marks as safe.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs, get_plotlyjs_version

if TYPE_CHECKING:  # only `compare` draws with it, and it takes a while to import
    import plotly.graph_objects as go

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Library:
    """How plotly.js comes into a page: its own text, or the address that the page may load."""

    source: Markup
    address: str


def _inline() -> Library:
    return Library(Markup(get_plotlyjs()), "")


def _from_cdn() -> Library:
    return Library(Markup(), f"https://cdn.plot.ly/plotly-{get_plotlyjs_version()}.min.js")


def _none() -> Library:
    return Library(Markup(), "")


LIBRARIES: Mapping[str, Callable[[], Library]] = {
    "inline": _inline,
    "cdn": _from_cdn,
    "none": _none,
}
"""plotly.js in the page, from its makers' server, and not at all, for a page without figures."""


def render(template: str, plotlyjs: str, title: str, **values: Any) -> str:
    """The whole page as HTML, from the template of this name and its values."""
    page = _environment().get_template(template)
    return page.render(
        title=title, style=asset("page.css"), library=LIBRARIES[plotlyjs](), **values
    )


@cache  # it compiles each template once
def _environment() -> Environment:
    """Where templates are found, and how: all text is escaped, and JSON cannot end its script."""
    environment = Environment(
        loader=PackageLoader("bam_search.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def asset(name: str) -> Markup:
    """The text of a file in assets/, to stand in a script or style element."""
    return Markup((ASSETS / name).read_text(encoding="utf-8"))


def embedded(figure: "go.Figure", name: str) -> Markup:
    """A figure as HTML, in an element of this id; plotly.js is in the page's head.

    Plotly would give it a random id, and a page that is made again must be the same page.
    """
    # Plotly's own button uploads the chart to its makers: a report leaves no machine by itself.
    config = {
        "displaylogo": False,
        "responsive": True,
        "showSendToCloud": False,
        "toImageButtonOptions": {"format": "svg"},
    }
    return Markup(
        figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=name)
    )
