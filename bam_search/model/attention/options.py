"""Checks that the attention modules share.

Each module checks its own options when it is made, so that illegal ones fail at construction.
"""

from bam_search.errors import UserError


def reduced_channels(channels: int, r: int, at_least: int = 1) -> int:
    """C // r.

    Raises UserError if that is less than `at_least`: torch would build a branch without channels,
    and say nothing.
    """
    if channels < at_least:
        raise UserError(f"{channels} channels are too few", f"at least {at_least} are needed")
    if r < 1 or channels // r < at_least:
        what = "is no reduction" if r < 1 else "leaves too few hidden channels"
        raise UserError(
            f"r = {r} on {channels} channels {what}",
            f"r can be 1 to {channels // at_least} there",
        )
    return channels // r


def require_positive(**counts: int) -> None:
    """Raises UserError for a count below 1."""
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name} = {value}", f"{name} is a whole number of at least 1")
