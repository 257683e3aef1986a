"""Numbers with a unit, as a person says them."""


def size_in_words(size: float) -> str:
    """Bytes with a unit: 12 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def time_in_words(seconds: float) -> str:
    """Seconds with a unit: 12 s, 3 min, 2 h, 5 days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
