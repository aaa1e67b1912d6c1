"""What a search over a space may choose.

Its sites, and for each site the attention modules with the option values that are legal there.
"""

import itertools
from collections.abc import Iterator

from bam_search.errors import UserError
from bam_search.model.attention import canonical, defaults
from bam_search.space.placement import Choice, Option, Placement
from bam_search.space.search_space import ChoiceSpace, Options, SearchSpace
from bam_search.space.sites import NoSuchSites, Site, Sites

AMPLE = 65_536
"""More channels, and a larger map, than any site has: an illegal choice here is never legal."""


def choice_space_of(space: SearchSpace, sites: Sites) -> ChoiceSpace:
    """The choice space of `space` for the sites of its backbone.

    Combinations of values are legal or not. A value is in the choice space of a site if some
    combination with it is legal there, and `ChoiceSpace.illegal` has the combinations that are not.
    Raises UserError if nothing is legal, or if the space names a value that is legal nowhere.
    """
    names = _names(space, sites)
    for module, options in space.modules.items():
        _check(module, options, sites)
    named_sites = [site for site in sites if site.name in names]
    legal: dict[str, dict[str, Options]] = {}
    illegal: set[tuple[str, Choice]] = set()
    for site in named_sites:
        offered, forbidden = _offered(space, site)
        if offered:
            legal[site.name] = offered
            illegal |= {(site.name, choice) for choice in forbidden}
    if not legal:
        raise UserError(
            f"space {space.name!r} offers nothing: "
            "none of its modules is legal at any of its sites",
            "widen its option values",
        )
    left_out = tuple(site.name for site in named_sites if site.name not in legal)
    module_defaults = {name: defaults(name) for name in space.offered(AMPLE)}
    return ChoiceSpace(legal, module_defaults, frozenset(illegal), left_out)


def _offered(space: SearchSpace, site: Site) -> tuple[dict[str, Options], set[Choice]]:
    """The legal values of the modules that fit a site, and illegal combinations of these."""
    offered: dict[str, Options] = {}
    illegal: set[Choice] = set()
    for module, options in space.offered(site.channels).items():
        values, forbidden = _legal_values(module, options, site)
        if all(values.values()):
            offered[module] = values
            illegal |= forbidden
    return offered, illegal


def _legal_values(
    module: str, options: Options, site: Site
) -> tuple[dict[str, tuple[Option, ...]], set[Choice]]:
    """The values that are legal at a site in some combination, and the illegal combinations."""
    allowed = [choice for choice in _choices(module, options) if _allowed(choice, site)]
    values = _values(options, allowed)
    return values, set(_choices(module, values)).difference(allowed)


def _names(space: SearchSpace, sites: Sites) -> set[str]:
    """The sites that the space's targets name.

    Raises NoSuchSites only if all of them are empty: a named set may be empty if another is not.
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
    """For each option, those of its values that some of the choices have."""
    used: dict[str, tuple[Option, ...]] = {}
    for name, values in options.items():
        in_choices = [dict(choice.options)[name] for choice in choices]
        used[name] = tuple(value for value in values if value in in_choices)
    return used


def _check(module: str, options: Options, sites: Sites) -> None:
    """Raises UserError for a value that is legal at no site, in no combination.

    Such a value is a mistake in the space, and so is one that no placement can have as text.
    """
    legal: list[Choice] = []
    errors: dict[Choice, UserError] = {}
    for choice in _choices(module, options):
        _check_text(choice)
        try:
            canonical(choice, AMPLE, AMPLE)
            legal.append(choice)
        except UserError as error:
            if any(_allowed(choice, site) for site in sites):
                legal.append(choice)  # of a number of channels that divides otherwise
            else:
                errors[choice] = error
    legal_values = _values(options, legal)
    for name, values in options.items():
        for value in values:
            if value not in legal_values[name]:
                raise _first_error(errors, name, value)


def _check_text(choice: Choice) -> None:
    """Raises UserError for a choice that does not read back from its text as it is."""
    ((_, read_back),) = Placement.parse(f"site={choice.text}").choices
    if repr(read_back) != repr(choice):
        raise UserError(
            f"{choice.text} does not read back as it was given",
            "an option is a number, true, false or a word of letters and digits",
        )


def _first_error(errors: dict[Choice, UserError], name: str, value: Option) -> UserError:
    """The error of the first choice that has this value."""
    return next(error for choice, error in errors.items() if dict(choice.options)[name] == value)


def _allowed(choice: Choice, site: Site) -> bool:
    try:
        canonical(choice, site.channels, site.side, site.dims)
    except UserError:
        return False
    return True
