"""What a search over a space may choose: its sites, and for each the modules with the option values that are legal there."""

from collections.abc import Mapping

from bam_search.errors import UserError
from bam_search.model.attention import canonical, defaults
from bam_search.space.placement import Choice, Option
from bam_search.space.search_space import Menu, Options, SearchSpace
from bam_search.space.sites import NoSuchSites, Site, Sites

PLENTY = 65_536
"""More channels, and a larger map, than any site has: what is illegal here is illegal everywhere."""


def menu(space: SearchSpace, sites: Sites) -> Menu:
    """What a search over `space` may choose: its sites, and for each the modules with the option values that are legal there.

    Raises UserError if that is nothing, or if the space offers what is legal nowhere.
    """
    names = _names(space, sites)
    offered = {site.name: _legal(space.modules, site) for site in sites if site.name in names}
    legal = {name: modules for name, modules in offered.items() if modules}
    if not legal:
        raise UserError(f"space {space.name!r} offers nothing: none of its modules is legal at any of its sites", "widen its option values")
    return Menu(legal, {name: defaults(name) for name in space.modules})


def _names(space: SearchSpace, sites: Sites) -> set[str]:
    """The sites that the space's targets name; a named set that is empty here does not matter if another is not."""
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


def _legal(modules: Mapping[str, Options], site: Site) -> dict[str, dict[str, tuple[Option, ...]]]:
    legal = {
        module: {name: tuple(v for v in values if _allowed(Choice.of(module, {name: v}), site)) for name, values in options.items()}
        for module, options in modules.items()
    }
    return {module: options for module, options in legal.items() if all(options.values())}


def _allowed(choice: Choice, site: Site) -> bool:
    canonical(choice, PLENTY, PLENTY)  # a mistake of the space's own is raised
    try:
        canonical(choice, site.channels, site.side)
    except UserError:
        return False
    return True
