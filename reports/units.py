"""Numbers as people read them, in the units that the dashboards use."""

from math import isfinite

SPANS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
# The thousands of 1024, and of 1000.
BINARY = ("", "Ki", "Mi", "Gi", "Ti")
DECIMAL = ("", "k", "M", "G")
SUFFIXES = {"reqps": " req/s", "cps": " /s", "bytes": "B", "binBps": "B/s"}


def rounded(value: float, decimals: int | None) -> str:
    """Return a number with so many decimals, or with three digits that count."""
    if decimals is not None:
        return f"{value:.{decimals}f}"
    # What was computed is rarely whole to the last digit.
    value = round(value, 9)
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return text if float(text) or not value else f"{value:.2g}"


def scaled(value: float, base: int, names: tuple[str, ...], decimals: int | None) -> str:
    """Return a number with the letter of its thousands."""
    power = 0
    while abs(value) >= base and power + 1 < len(names):
        value, power = value / base, power + 1
    gap = " " if names[power] or names is BINARY else ""
    return f"{rounded(value, decimals)}{gap}{names[power]}"


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a number with its unit.

    Raises:
        ValueError: the unit is unknown here.
    """
    if not isfinite(value):
        return "–"
    match unit:
        case "percentunit":
            return f"{rounded(100 * value, decimals)} %"
        case "s":
            for length, name in SPANS:
                if abs(value) >= length:
                    return f"{rounded(value / length, decimals)} {name}"
            return f"{rounded(value, decimals)} s"
        case "bytes" | "binBps":
            return scaled(value, 1024, BINARY, decimals) + SUFFIXES[unit]
        case "short" | "reqps" | "cps" | "string":
            return scaled(value, 1000, DECIMAL, decimals) + SUFFIXES.get(unit, "")
    raise ValueError(f"unknown unit {unit}")
