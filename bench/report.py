"""Small tables for people, the same as JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = [title]
    for line in lines:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  " + "  ".join(cells).rstrip())
    return "\n".join(text) + "\n"


def throughput(title: str, results: dict[str, dict[str, Any]], first: str) -> str:
    """``results``: spreads by server, "accepted", "finished", "processor_us"; ratios say how many times ``first``."""
    rows = []
    for name, result in results.items():
        finished = result["finished"]
        ratio = ""
        if name != first and first in results:
            ratio = f"{results[first]['finished']['median'] / finished['median']:.1f}"
        rows.append(
            [
                name,
                f"{result['accepted']['median']:,.0f}",
                f"{finished['median']:,.0f}",
                f"{finished['least']:,.0f} to {finished['most']:,.0f}",
                f"{result['processor_us']['median']:,.0f}",
                ratio,
            ]
        )
    columns = ["server", "accepted/s", "finished/s", "least to most", "processor µs each", f"{first} is times"]
    return table(title, columns, rows)
