"""Numbers and nouns in sentences. May touch nothing."""


def counted(n: int, noun: str) -> str:
    """'1 epoch', '1,200 epochs'."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
