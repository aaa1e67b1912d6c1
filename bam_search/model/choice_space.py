"""What a search over a space may choose: its sites, and for each the modules with the option values
that are legal there.
"""

import itertools
from collections.abc import Iterator

from bam_search.errors import UserError
from bam_search.model.attention import canonical, defaults
from bam_search.space.placement import Choice, Option
from bam_search.space.search_space import ChoiceSpace, Options, SearchSpace
from bam_search.space.sites import NoSuchSites, Site, Sites

AMPLE = 65_536
"""More channels, and a larger map, than any site has: what is illegal here is illegal everywhere.
"""


def choice_space_of(space: SearchSpace, sites: Sites) -> ChoiceSpace:
    """What a search over `space` may choose: its sites, and for each the modules with the option
    values that are legal there.

    Legal are combinations: a value is on offer where some combination with it is legal, and
    `Menu.illegal` has those that are not. Raises UserError if that is nothing, or if the space
    offers what is legal nowhere.
    """
    names = _names(space, sites)
    for module, options in space.modules.items():
        _check(module, options)
    legal: dict[str, dict[str, Options]] = {}
    illegal: set[tuple[str, Choice]] = set()
    for site in (site for site in sites if site.name in names):
        for module, options in space.modules.items():
            offered = {choice: _allowed(choice, site) for choice in _choices(module, options)}
            values = _values(options, [choice for choice, allowed in offered.items() if allowed])
            if not all(values.values()):
                continue
            legal.setdefault(site.name, {})[module] = values
            illegal |= {
                (site.name, choice) for choice in _choices(module, values) if not offered[choice]
            }
    if not legal:
        raise UserError(
            f"space {space.name!r} offers nothing: none of its modules is legal at any of its sites",
            "widen its option values",
        )
    left_out = tuple(site.name for site in sites if site.name in names and site.name not in legal)
    return ChoiceSpace(
        legal, {name: defaults(name) for name in space.modules}, frozenset(illegal), left_out
    )


def _names(space: SearchSpace, sites: Sites) -> set[str]:
    """The sites that the space's targets name; a named set that is empty here does not matter if
    another is not.
    """
    names: set[str] = set()
    missing = None
    for target in space.sites:
        try:
            names.update(site.name for site in sites.select(target))
        except NoSuchSites as error:
            missing = error
    if missing and not names:
        raise missing
    return names


def _choices(module: str, options: Options) -> Iterator[Choice]:
    """Every combination of the options."""
    for values in itertools.product(*options.values()):
        yield Choice.of(module, dict(zip(options, values, strict=True)))


def _values(options: Options, choices: list[Choice]) -> dict[str, tuple[Option, ...]]:
    """Of each option the values that some of the choices have."""
    written = [dict(choice.options) for choice in choices]
    return {
        name: tuple(value for value in values if any(w[name] == value for w in written))
        for name, values in options.items()
    }


def _check(module: str, options: Options) -> None:
    """Raises UserError for a value that is legal with nothing, at no site: a mistake of the space's
    own.
    """
    mistakes: dict[Choice, UserError] = {}
    for choice in _choices(module, options):
        try:
            canonical(choice, AMPLE, AMPLE)
        except UserError as error:
            mistakes[choice] = error
    legal = _values(
        options, [choice for choice in _choices(module, options) if choice not in mistakes]
    )
    for name, values in options.items():
        for value in values:
            if value not in legal[name]:
                raise next(
                    error
                    for choice, error in mistakes.items()
                    if dict(choice.options)[name] == value
                )


def _allowed(choice: Choice, site: Site) -> bool:
    try:
        canonical(choice, site.channels, site.side)
    except UserError:
        return False
    return True
