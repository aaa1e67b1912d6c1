"""Whether a submodule runs over its own children: seen by putting a probe into each.

A probe hands on what it gets, sits where attention would sit, and counts its calls.
"""

from collections.abc import Iterable

from torch import nn

from bam_search.model.insert import Mark, insert
from bam_search.space.placement import NONE


class Probe(nn.Module):
    """Counts its calls: those by its site's hook, and all others.

    `others_outside` are those while its site does not run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running = self.calls = self.site_calls = self.others_outside = 0

    def forward(self, *args: object) -> object:
        self.calls += 1
        self.others_outside += not self.running
        return args[0] if args else None

    def begin(self, *_: object) -> None:
        """Its site begins to run."""
        self.running += 1
        self.site_calls += 1

    def end(self, *_: object) -> None:
        """Its site has run."""
        self.running -= 1

    @property
    def others(self) -> int:
        """Calls by something else than its site's hook."""
        return self.calls - self.site_calls


def put_probes(model: nn.Module, names: Iterable[str]) -> dict[str, Probe]:
    """Put a probe into each submodule of these names; the probes by name."""
    probes = {name: Probe() for name in names}
    insert(model, {name: (probe, Mark(NONE, order=0)) for name, probe in probes.items()})
    for name, probe in probes.items():
        site = model.get_submodule(name)
        site.register_forward_pre_hook(probe.begin)
        site.register_forward_hook(probe.end)
    return probes
