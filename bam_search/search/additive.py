"""Where attention helps: a small additive model of the error, from all records.

No library but numpy.

error = intercept + sum over sites of (module there + each of its options' values there) + noise.
The same effects also exist once for all sites together, so a site that was tried twice borrows from
the others. Bayesian linear regression with one prior scale for all effects, averaged over its
posterior (Christopher Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.5): few
records give wide intervals, not wild estimates. An option's values are coded around their mean, so
a module's effect is that of its average setting.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bam_search.search.record import Record
from bam_search.space.placement import Choice, Option, Placement
from bam_search.space.search_space import ChoiceSpace

MIN_RECORDS = 6
"""With fewer records nothing is said of where attention helps."""
SCALES = np.geomspace(1e-3, 1e2, 26)
"""Prior variances of an effect, in units of the noise's variance."""
OPTION = 0.5
"""How large an option's effect is expected to be, beside that of a module being there at all."""


@dataclass(frozen=True, eq=False)
class PlacementEncoder:
    """The choice space as arrays: at site i choice j > 0 is `choices[i][j - 1]`, choice 0 is
    nothing, and `rows[i][j]` are its features.

    A placement is a vector of such j, one a site; `numbers` has i and j of each site's choices,
    these with every option of their module.
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
        names: dict[str, int] = {}
        terms = {
            site: [_terms(site, choice, choice_space) for choice in choice_space.choices(site)]
            for site in choice_space.sites
        }
        for offered in terms.values():
            for found in offered:
                for name in found:
                    names.setdefault(name, len(names))
        rows = []
        for offered in terms.values():
            row = np.zeros((1 + len(offered), len(names)))
            for j, found in enumerate(offered, start=1):
                for name, value in found.items():
                    row[j, names[name]] = value
            rows.append(row)
        choices = tuple(tuple(choice_space.choices(site)) for site in choice_space.sites)
        numbers = {
            (site, choice_space.written_out(choice)): (i, j)
            for i, (site, own) in enumerate(zip(choice_space.sites, choices, strict=True))
            for j, choice in enumerate(own, start=1)
        }
        return cls(
            choice_space, tuple(choice_space.sites), choices, tuple(rows), tuple(names), numbers
        )

    def features(self, vectors: np.ndarray) -> np.ndarray:
        """(n, sites) choices -> (n, features)."""
        return np.asarray(sum(row[vectors[:, i]] for i, row in enumerate(self.rows)))

    def vector(self, placement: Placement) -> np.ndarray | None:
        """The choices of a canonical placement; None if it is not in the choice space."""
        vector = np.zeros(len(self.sites), dtype=np.int64)
        for site, choice in placement.choices:
            found = self.numbers.get((site, self.choice_space.written_out(choice)))
            if found is None:
                return None
            vector[found[0]] = found[1]
        return vector

    def placement(self, vector: Iterable[int]) -> Placement:
        """The inverse of `vector`, with every option written out."""
        return Placement.of(
            {
                site: self.choices[i][j - 1]
                for i, (site, j) in enumerate(zip(self.sites, vector, strict=True))
                if j
            }
        )


def _terms(site: str, choice: Choice, choice_space: ChoiceSpace) -> dict[str, float]:
    """The features of a choice at a site: name -> value."""
    found = {choice.module: 1.0, f"{site}={choice.module}": 1.0}
    for option, value in choice.options:
        values = choice_space.sites[site][choice.module][option]
        for other in values if len(values) > 1 else ():
            coded = OPTION * ((other == value) - 1 / len(values))
            found[f"{choice.module}({option}={other})"] = coded
            found[f"{site}={choice.module}({option}={other})"] = coded
    return found


@dataclass(frozen=True, eq=False)
class AdditiveModel:
    """What the model knows after some records: the posterior of every effect, in points of error.

    `left_out` is the root mean square of the errors of each record as predicted from the others,
    `left_out_mean` the same for the plain mean of the others: a model that explains nothing has the
    two alike.
    """

    encoder: PlacementEncoder
    mean_row: np.ndarray
    mean_error: float
    degrees: float
    vectors: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    noise: np.ndarray
    weights: np.ndarray
    left_out: float
    left_out_mean: float

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, features) draws of all effects from the posterior."""
        which = rng.choice(len(SCALES), n, p=self.weights)
        noise = self.noise[which] * self.degrees / rng.chisquare(self.degrees, n)
        turned = self.means[which] + rng.standard_normal((n, self.vectors.shape[0])) * np.sqrt(
            self.variances[which] * noise[:, None]
        )
        return np.asarray(turned @ self.vectors.T)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(n, features) placements -> (n,) expected errors."""
        effects = self.vectors @ (self.weights @ self.means)
        return np.asarray(self.mean_error + (features - self.mean_row) @ effects)


def fit(
    encoder: PlacementEncoder,
    vectors: np.ndarray,
    errors: np.ndarray,
    weights: np.ndarray | None = None,
) -> AdditiveModel:
    """The effects after (n, sites) placements with these errors, n > 2; a record of weight 1/4
    counts as a quarter of one.
    """
    weights = np.ones(len(errors)) if weights is None else weights
    rows = encoder.features(vectors)
    total = weights.sum()
    mean_row, mean_error = weights @ rows / total, float(weights @ errors / total)
    x = (rows - mean_row) * np.sqrt(weights)[:, None]
    y = (errors - mean_error) * np.sqrt(weights)
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
        mean_error=mean_error,
        degrees=degrees,
        vectors=turned,
        means=means,
        variances=gains,
        noise=left / degrees,
        weights=posterior,
        left_out=float(np.sqrt(np.mean(left_out**2))),
        left_out_mean=float(np.sqrt(np.mean(left_out_mean**2))),
    )


def explain(
    records: Iterable[Record], choice_space: ChoiceSpace
) -> tuple[AdditiveModel, np.ndarray] | None:
    """The effects on the validation error, and the (n, sites) placements they are from; None if
    there are fewer than FEWEST.

    From all complete records in the choice space, each placement once.
    """
    encoder = PlacementEncoder.of(choice_space)
    rows = {
        r.id: (encoder.vector(Placement.parse(r.placement)), r.val_error)
        for r in records
        if r.complete
    }
    known = [(vector, error) for vector, error in rows.values() if vector is not None]
    if len(known) < MIN_RECORDS:
        return None
    vectors = np.array([vector for vector, _ in known])
    return fit(encoder, vectors, np.array([error for _, error in known])), vectors


@dataclass(frozen=True)
class Effect:
    """The change of the error, in points, that something makes, with its interval."""

    name: str
    mean: float
    low: float
    high: float
    records: int


def effects_of(
    learned: AdditiveModel, vectors: np.ndarray, level: float = 0.9, draws: int = 4000
) -> list[Effect]:
    """For each site the effect of each module there at its average setting; for each module that of
    each option's value, over all sites.

    `records` says how many records have it.
    """
    encoder = learned.encoder
    effects = learned.sample(draws, np.random.default_rng(0))
    at = {name: i for i, name in enumerate(encoder.names)}
    found = []
    for i, site in enumerate(encoder.sites):
        for module in dict.fromkeys(choice.module for choice in encoder.choices[i]):
            chosen = [
                j for j, choice in enumerate(encoder.choices[i], start=1) if choice.module == module
            ]
            values = effects[:, at[module]] + effects[:, at[f"{site}={module}"]]
            found.append(
                _effect(
                    f"{site}={module}", values, level, int(np.isin(vectors[:, i], chosen).sum())
                )
            )
    for module, option, value in _options(encoder):
        name = f"{module}({option}={value})"
        others = [
            at[f"{module}({o}={v})"] for m, o, v in _options(encoder) if (m, o) == (module, option)
        ]
        values = OPTION * (effects[:, at[name]] - effects[:, others].mean(1))
        has = [
            {
                j
                for j, choice in enumerate(choices, start=1)
                if choice.module == module and dict(choice.options).get(option) == value
            }
            for choices in encoder.choices
        ]
        count = int(sum(any(j in has[i] for i, j in enumerate(vector)) for vector in vectors))
        found.append(_effect(name, values, level, count))
    return found


def _options(encoder: PlacementEncoder) -> list[tuple[str, str, Option]]:
    """Every module, option and value that has an effect."""
    found = {
        (c.module, option, value): None
        for choices in encoder.choices
        for c in choices
        for option, value in c.options
    }
    groups = list(dict.fromkeys((module, option) for module, option, _ in found))
    return sorted(
        (key for key in found if f"{key[0]}({key[1]}={key[2]})" in encoder.names),
        key=lambda key: groups.index(key[:2]),
    )


def _effect(name: str, values: Sequence[float] | np.ndarray, level: float, records: int) -> Effect:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Effect(name, float(np.mean(values)), float(low), float(high), records)
