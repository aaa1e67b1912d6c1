"""Where attention helps: a small additive model of the metric, fitted to all records.

    value = intercept + sum over sites of (module there + its options' values there) + noise

The same effects also exist once for all sites together, so a site with few records borrows from the
others. An option's values are coded around their mean, so a module's effect is that of its average
setting.

The method is Bayesian linear regression with one prior scale for all effects, averaged over the
posterior of that scale. Few records therefore give wide intervals, not wild estimates. Source:
Christopher Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.5.

The only library is numpy.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.space.placement import Choice, Placement
from bam_search.space.search_space import ChoiceSpace
from bam_search.study.record import Record

MIN_RECORDS = 6
"""With fewer records `explain` says nothing about where attention helps."""
SCALES = np.geomspace(1e-3, 1e2, 26)
"""Prior variances of an effect, in units of the noise's variance."""
OPTION_SCALE = 0.5
"""The expected size of an option's effect, relative to the effect of a module's presence."""


@dataclass(frozen=True, eq=False)
class PlacementEncoder:
    """Turns placements into vectors of choice numbers, and these into features.

    A vector has one number a site: 0 is no attention, j > 0 is `choices[i][j - 1]` at site i.

    Attributes:
        choices: the choices of each site, in the order of `sites`.
        rows: one array a site; `rows[i][j]` are the features of choice j at site i.
        names: the names of the features, in the order of the columns of `rows`.
        numbers: (site, choice with every option written out) -> (i, j).
    """

    choice_space: ChoiceSpace
    sites: tuple[str, ...]
    choices: tuple[tuple[Choice, ...], ...]
    rows: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    numbers: Mapping[tuple[str, Choice], tuple[int, int]]

    @classmethod
    def of(cls, choice_space: ChoiceSpace) -> "PlacementEncoder":
        """The encoder of a choice space."""
        sites = tuple(choice_space.sites)
        choices = tuple(tuple(choice_space.choices(site)) for site in sites)
        terms = [
            [_terms(site, choice, choice_space) for choice in at_site]
            for site, at_site in zip(sites, choices, strict=True)
        ]
        all_terms = itertools.chain.from_iterable(terms)
        names = tuple(dict.fromkeys(itertools.chain.from_iterable(all_terms)))
        rows = tuple(_feature_rows(at_site, names) for at_site in terms)
        numbers = {}
        for i, site in enumerate(sites):
            for j, choice in enumerate(choices[i], start=1):
                numbers[site, choice_space.written_out(choice)] = (i, j)
        return cls(choice_space, sites, choices, rows, names, numbers)

    def features(self, vectors: np.ndarray) -> np.ndarray:
        """The features of placements: (n, sites) choice numbers -> (n, features)."""
        return np.asarray(sum(row[vectors[:, i]] for i, row in enumerate(self.rows)))

    def vector(self, placement: Placement) -> np.ndarray | None:
        """The (sites,) choice numbers of a canonical placement.

        None if the placement is not in the choice space.
        """
        vector = np.zeros(len(self.sites), dtype=np.int64)
        for site, choice in placement.choices:
            number = self.numbers.get((site, self.choice_space.written_out(choice)))
            if number is None:
                return None
            i, j = number
            vector[i] = j
        return vector

    def placement(self, vector: Iterable[int]) -> Placement:
        """The inverse of `vector`, with every option written out."""
        choices = {}
        for site, at_site, j in zip(self.sites, self.choices, vector, strict=True):
            if j:
                choices[site] = at_site[j - 1]
        return Placement.of(choices)


def _feature_rows(terms: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """(1 + choices, features): the features of each choice at a site, those of no attention first.

    `terms` are the features of each choice by name; `names` are those of the columns.
    """
    column = {name: i for i, name in enumerate(names)}
    rows = np.zeros((1 + len(terms), len(names)))
    for j, of_choice in enumerate(terms, start=1):
        for name, value in of_choice.items():
            rows[j, column[name]] = value
    return rows


def _terms(site: str, choice: Choice, choice_space: ChoiceSpace) -> dict[str, float]:
    """The features of a choice at a site: name -> value."""
    terms = {choice.module: 1.0, f"{site}={choice.module}": 1.0}
    for option, value in choice.options:
        values = choice_space.sites[site][choice.module][option]
        if len(values) < 2:
            continue  # an option with one value is part of its module
        for other in values:
            coded = OPTION_SCALE * ((other == value) - 1 / len(values))
            terms[f"{choice.module}({option}={other})"] = coded
            terms[f"{site}={choice.module}({option}={other})"] = coded
    return terms


@dataclass(frozen=True, eq=False)
class AdditiveModel:
    """The posterior of every effect after some records, on the value to minimise.

    `loo_rmse` is the root mean square error of predicting each record from the others;
    `loo_rmse_of_mean` is the same for the plain mean of the others. The two are alike where the
    model explains nothing.
    """

    encoder: PlacementEncoder
    mean_row: np.ndarray
    mean_value: float
    degrees: float
    vectors: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    noise: np.ndarray
    weights: np.ndarray
    loo_rmse: float
    loo_rmse_of_mean: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The expected values of placements, to minimise: (n, features) -> (n,)."""
        effects = self.vectors @ (self.weights @ self.means)
        return np.asarray(self.mean_value + (features - self.mean_row) @ effects)

    def deviation(self, features: np.ndarray) -> np.ndarray:
        """How unsure the expected values are, as standard deviations: (n, features) -> (n,)."""
        along = (features - self.mean_row) @ self.vectors
        within = along**2 @ (self.weights @ (self.variances * self.noise[:, None]))
        by_scale = along @ self.means.T
        between = by_scale**2 @ self.weights - (by_scale @ self.weights) ** 2
        return np.asarray(np.sqrt(within + np.maximum(between, 0)))


def fit(
    encoder: PlacementEncoder,
    vectors: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray | None = None,
) -> AdditiveModel:
    """The additive model of placements with these values.

    Args:
        encoder: the encoder that made `vectors`.
        vectors: (n, sites) choice numbers of the placements, n > 2.
        values: (n,) values to minimise.
        weights: (n,) weights; a record of weight 1/4 counts as a quarter of one. By default all 1.
    """
    weights = np.ones(len(values)) if weights is None else weights
    rows = encoder.features(vectors)
    total = weights.sum()
    mean_row, mean_value = weights @ rows / total, float(weights @ values / total)
    x = (rows - mean_row) * np.sqrt(weights)[:, None]
    y = (values - mean_value) * np.sqrt(weights)
    squares, turned = np.linalg.eigh(x.T @ x)
    squares = np.maximum(squares, 0)
    along = turned.T @ (x.T @ y)
    gains = SCALES[:, None] / (1 + SCALES[:, None] * squares)
    means = gains * along
    # The noise's variance is integrated out; what is left is the evidence of each scale.
    left = np.maximum(y @ y - (gains * along**2).sum(1), 1e-12)
    degrees = max(float(total) - 1, 1.0)
    evidence = -0.5 * degrees * np.log(left) - 0.5 * np.log1p(SCALES[:, None] * squares).sum(1)
    posterior = np.exp(evidence - evidence.max())
    posterior /= posterior.sum()
    scores = x @ turned
    hat = scores**2 @ (posterior @ gains) + weights / total
    fitted = scores @ (posterior @ means)
    left_out = (y - fitted) / np.maximum(1 - hat, 1e-9)
    left_out_mean = y / np.maximum(1 - weights / total, 1e-9)
    return AdditiveModel(
        encoder=encoder,
        mean_row=mean_row,
        mean_value=mean_value,
        degrees=degrees,
        vectors=turned,
        means=means,
        variances=gains,
        noise=left / degrees,
        weights=posterior,
        loo_rmse=float(np.sqrt(np.mean(left_out**2))),
        loo_rmse_of_mean=float(np.sqrt(np.mean(left_out_mean**2))),
    )


def explain(records: Iterable[Record], choice_space: ChoiceSpace) -> AdditiveModel | None:
    """The model of what the search minimises.

    It is fitted to all complete records in the choice space, each placement once. None if these are
    fewer than MIN_RECORDS.
    """
    encoder = PlacementEncoder.of(choice_space)
    by_id = {record.id: record for record in records if record.complete}
    vectors, values = [], []
    for record in by_id.values():
        vector = encoder.vector(record.parsed_placement)
        if vector is not None:
            vectors.append(vector)
            values.append(record.score)
    if len(vectors) < MIN_RECORDS:
        return None
    return fit(encoder, np.array(vectors), np.array(values))
