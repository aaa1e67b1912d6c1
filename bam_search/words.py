"""Numbers and nouns in sentences. Imports nothing of bam_search."""

from collections.abc import Sequence


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: '1 epoch', '1,200 epochs', '2 boxes'."""
    plural = "es" if noun.endswith(("x", "ss")) else "s"
    return f"{n:,} {noun}{'' if n == 1 else plural}"


def counted_range(counts: Sequence[int], noun: str) -> str:
    """Return the least and the most of some numbers with their noun: '3 to 9 seeds', '1 seed'."""
    least, most = min(counts), max(counts)
    if least == most:
        return counted(least, noun)
    return f"{least:,} to {most:,} {noun}s"


def listed(names: Sequence[str], most: int) -> str:
    """Return the first of some names, and how many more there are: 'a, b and 3 more'."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def duration(seconds: float) -> str:
    """Return a time in the unit that a person would use: '2.5 hours', '40 min', '12 s'."""
    for name, unit in (("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 10 * unit:
            return f"{seconds / unit:.0f} {name}"
        if seconds >= 1.5 * unit:
            number = f"{seconds / unit:.1f}".removesuffix(".0")
            return f"{number} {name}"
    return f"{max(1, round(seconds))} s"
