"""A stand-in for CIFAR-100 where there is no network.

The images are 32x32 RGB, generated in seconds, the same on every machine. A class is one of 10
shapes in one of 10 hues. The object lies anywhere, at any angle and at half to full size, on a
cluttered ground with smaller distractors of other hues and noise. Only the object's shape and size
show which of the hues counts, so a network must find where the object is to say what it is.
"""

from collections.abc import Callable

import numpy as np

SIDE = 32
SHAPES = 10
HUES = 10
CHUNK = 400  # whole hundreds keep each chunk balanced; this many fit into a cache
Array = np.ndarray
Inside = Callable[[Array, Array], Array]


def generate_images(
    train: int = 50_000, test: int = 10_000, seed: int = 100
) -> tuple[Array, Array, Array, Array]:
    """x_train (train, 32, 32, 3) uint8, y_train (train,) int64, x_test and y_test likewise.

    There are 100 classes, balanced.
    """
    total = train + test
    images, labels = [], []
    for start in range(0, total, CHUNK):
        rng = np.random.default_rng((seed, start))
        chunk_images, chunk_labels = _chunk(rng, min(CHUNK, total - start))
        images.append(chunk_images)
        labels.append(chunk_labels)
    x, y = np.concatenate(images), np.concatenate(labels)
    return x[:train], y[:train], x[train:], y[train:]


def _chunk(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    labels = rng.permutation(np.arange(n) % (SHAPES * HUES))
    image = _ground(rng, n)
    for _ in range(3):
        hue = rng.uniform(0, 1, n)
        mask = _mask(rng.integers(0, SHAPES, n), *_frame(rng, n, 2.0, 4.0))
        _paint(image, mask, _colour(rng, hue))
    hue = (labels % HUES + rng.uniform(-0.3, 0.3, n)) / HUES
    _paint(image, _mask(labels // HUES, *_frame(rng, n, 5.0, 10.0)), _colour(rng, hue))
    image += 0.06 * rng.standard_normal(image.shape, dtype=np.float32)
    return (image.clip(0, 1) * 255).astype(np.uint8), labels.astype(np.int64)


def _ground(rng: np.random.Generator, n: int) -> Array:
    """Smooth random colour: 4x4 random pixels, enlarged linearly. (n, 32, 32, 3) float32."""
    coarse = rng.uniform(0.1, 0.7, (n, 5, 5, 3)).astype(np.float32)
    at = np.linspace(0, 4, SIDE, endpoint=False, dtype=np.float32)
    low, weight = at.astype(int), at % 1
    rows = coarse[:, low] * (1 - weight)[:, None, None] + coarse[:, low + 1] * weight[:, None, None]
    return rows[:, :, low] * (1 - weight)[:, None] + rows[:, :, low + 1] * weight[:, None]


def _frame(
    rng: np.random.Generator, n: int, smallest: float, largest: float
) -> tuple[Array, Array]:
    """The coordinates (x, y) of each pixel in the frame of an object, each (n, 32, 32) float32.

    The object has a random place, angle and radius, and lies within the unit circle of its frame.
    """
    radius = rng.uniform(smallest, largest, (n, 1, 1)).astype(np.float32)
    place = rng.uniform(0, 1, (2, n, 1, 1)).astype(np.float32)
    centre = 0.7 * radius + place * (SIDE - 1.4 * radius)
    angle = rng.uniform(-np.pi, np.pi, (n, 1, 1)).astype(np.float32)
    pixels = np.arange(SIDE, dtype=np.float32)
    y, x = pixels[:, None] - centre[0], pixels - centre[1]
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    return x * cos + y * sin, y * cos - x * sin


def _mask(shape: Array, u: Array, v: Array) -> Array:
    """Which pixels the objects cover: (n, 32, 32) bool."""
    mask = np.zeros(u.shape, dtype=bool)
    for index, inside in enumerate(_INSIDE):
        chosen = shape == index
        mask[chosen] = inside(u[chosen], v[chosen])
    return mask


def _radius(u: Array, v: Array) -> Array:
    return np.hypot(u, v)


def _petals(u: Array, v: Array, count: int) -> Array:
    return _radius(u, v) < 0.65 + 0.35 * np.cos(count * np.arctan2(v, u))


_INSIDE: tuple[Inside, ...] = (
    lambda u, v: _radius(u, v) < 0.85,  # disc
    lambda u, v: (_radius(u, v) < 1) & (_radius(u, v) > 0.6),  # ring
    lambda u, v: np.maximum(abs(u), abs(v)) < 0.72,  # square
    lambda u, v: (np.maximum(abs(u), abs(v)) < 0.8) & (np.maximum(abs(u), abs(v)) > 0.45),  # frame
    lambda u, v: (v > -0.5) & (v < 1 - 1.9 * abs(u)),  # triangle
    lambda u, v: (np.minimum(abs(u), abs(v)) < 0.28) & (np.maximum(abs(u), abs(v)) < 0.95),  # cross
    lambda u, v: (abs(u) < 1) & (abs(v) < 0.35),  # bar
    lambda u, v: (_radius(u, v) < 1) & (np.hypot(u - 0.5, v) > 0.75),  # crescent
    lambda u, v: _petals(u, v, 3),
    lambda u, v: _petals(u, v, 5),
)


def _colour(rng: np.random.Generator, hue: Array) -> Array:
    """RGB of a hue in [0, 1], at random brightness. (n, 3) float32."""
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[:, None] - np.array([0, 1 / 3, 2 / 3])))
    return (wheel * rng.uniform(0.7, 1.0, (len(hue), 1))).astype(np.float32)


def _paint(image: Array, mask: Array, colour: Array) -> None:
    image[mask] = colour[np.nonzero(mask)[0]]
