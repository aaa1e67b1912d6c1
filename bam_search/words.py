"""Numbers and nouns in sentences. Imports nothing of bam_search."""


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: '1 epoch', '1,200 epochs'."""
    plural = "" if n == 1 else "s"
    return f"{n:,} {noun}{plural}"
