"""How well the latency of placements is predicted by measured increments.

    python -m benchmarks.latency [--space small] [--placements 20] [--device auto] [--out FILE.json]

Measures what each choice of the space adds, as a study does that searches by latency, then random
placements as finalists are measured: as trained (a batch of 32 images on a GPU, fewer of large
images on a CPU) and as deployed. States for both the error of the predictions in percent points,
Kendall's tau, the same of parameters and MACs, which a study knows without any measurement, and
how far a repeated measurement of the same placement is from the first.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from scipy import stats

from bam_search.model.attach import resolve
from bam_search.model.build import backbone, build, sites_of
from bam_search.model.choice_space import choice_space_of
from bam_search.running.latency import BATCH, NUMBERS, settings_of
from bam_search.score.cost import COUNTS
from bam_search.score.cost_table import cost_table
from bam_search.score.cuda_graphs import settle
from bam_search.score.device import DEVICES, Device, choose, samples_for
from bam_search.score.latency import LatencySetting, latency
from bam_search.score.latency_table import Network, measure
from bam_search.search.candidate_pool import CandidatePool
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace, load_space
from benchmarks.results import deliver, say

Row = dict[str, Any]


def settings_on(device: Device, space: SearchSpace) -> dict[str, LatencySetting]:
    """How a study with one CPU thread a training measures, by the field of a record."""
    batch = samples_for(device.type, space.input_shape, BATCH, NUMBERS)
    trained = LatencySetting(device, space.input_shape, batch, device.bf16, threads=1)
    return settings_of(trained)


def compared(space: SearchSpace, number: int, device: Device) -> dict[str, Any]:
    """Predict and measure `number` random placements; the summary, for JSON."""
    sites = sites_of(space)
    choices = choice_space_of(space, sites)
    offered = {site: choices.choices(site) for site in choices.sites}

    def make(placement: Placement) -> torch.nn.Module:
        return build(space, sites, placement, 0)

    network = Network(backbone(space, 0), make, sites.by_name, offered)
    settings = settings_on(device, space)
    table = measure(network, settings)
    say(f"{sum(map(len, offered.values()))} choices measured in {table.seconds:.1f} s")
    costs = cost_table(space, sites)
    pool = CandidatePool.of(choices, lambda _site, _choice: [0.0], [float("inf")], 1)
    rows = []
    for seed in range(number):
        placement = resolve(pool.spread(seed), sites)
        counts = {key: getattr(costs.cost(placement), key) for key in COUNTS}
        row: Row = {"placement": placement.text, **counts}
        for key, setting in settings.items():
            found = [latency(make(placement), network.base, setting) for _ in range(2)]
            first, second = (100 * (each.ratio - 1) for each in found)
            width = 100 * (found[0].high - found[0].low)
            predicted = table.overhead(key, placement, sites.by_name)
            row[key] = {"predicted": predicted, "measured": first, "again": second, "width": width}
        rows.append(row)
        say(f"{seed + 1} of {number}: {placement.text}")
    summaries = {key: summary(rows, key) for key in settings}
    return {
        "space": space.name,
        "device": device.name,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "seconds": table.seconds,
        "scales": dict(table.scales),
        **summaries,
        "placements": rows,
    }


def summary(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """How far predictions are from measurements, and how well they rank placements."""
    predicted, measured, again = (
        [row[key][name] for row in rows] for name in ("predicted", "measured", "again")
    )
    errors = [abs(one - other) for one, other in zip(predicted, measured, strict=True)]
    repeated = [abs(one - other) for one, other in zip(again, measured, strict=True)]
    taus = {f"tau_of_{count}": _tau([row[count] for row in rows], measured) for count in COUNTS}
    return {
        "n": len(rows),
        "median_measured": median(measured),
        "median_error": median(errors),
        "largest_error": max(errors),
        "median_of_repeated": median(repeated),
        "tau": _tau(predicted, measured),
        "tau_of_repeated": _tau(again, measured),
        **taus,
    }


def _tau(one: Sequence[float], other: Sequence[float]) -> float:
    return float(stats.kendalltau(one, other).statistic)


def main() -> None:
    """Parse the command line, measure, and deliver the summary."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--space", default="small")
    parser.add_argument("--placements", type=int, default=20)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    device = choose(asked.device)
    if device.type == "cuda":
        settle()
    deliver(compared(load_space(asked.space), asked.placements, device), asked.out)


if __name__ == "__main__":
    main()
