"""What benchmarks measured, beside what, and whether that is good enough: a line each when it is known, and a table of all of them."""

import os
import platform
import re
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

_HEADER = "# Benchmarks\n"
_INTRODUCTION = """
`make bench` writes this page, `make bench BENCH=stream` the rows of one file of `tests/benchmarks/`.
A ratio is of two things that were timed in turn in one run, on a machine that did nothing else; a bare figure depends on the machine.
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A row of the table, as text: what was measured, ours, what it stands beside, their ratio, the goal, and on which day and machine."""

    what: str
    ours: str
    beside: str
    ratio: str
    goal: str
    met: str
    measured: str


FIGURES: list[Figure] = []
"""Those of this session of pytest."""


def compare(
    what: str, *, ours: float, beside: str, theirs: float, unit: str, at_most: float | None = None, at_least: float | None = None
) -> bool:
    """Note `ours` and `theirs`, of the thing named `beside`, both in `unit`, and whether `ours / theirs` is as the goal has it."""
    ratio = ours / theirs
    return _note(
        what,
        ours=f"{_number(ours)} {unit}",
        beside=f"{beside}: {_number(theirs)} {unit}",
        ratio=f"{ratio:.2f}",
        value=ratio,
        limits=(at_most, at_least),
        unit="x",
    )


def record(what: str, *, ours: float, unit: str, at_most: float | None = None, at_least: float | None = None) -> bool:
    """Note `ours` in `unit`, which stands beside nothing, and whether it is as the goal has it."""
    shown = f"{_number(ours)} {unit}".strip()
    return _note(what, ours=shown, beside="", ratio="", value=ours, limits=(at_most, at_least), unit=f" {unit}".rstrip())


def _note(
    what: str, *, ours: str, beside: str, ratio: str, value: float, limits: tuple[float | None, float | None], unit: str
) -> bool:
    at_most, at_least = limits
    met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
    goals = [f"{sign} {_number(limit)}{unit}" for sign, limit in (("<=", at_most), (">=", at_least)) if limit is not None]
    figure = Figure(
        what=what,
        ours=ours,
        beside=beside,
        ratio=ratio,
        goal=", ".join(goals),
        met=("yes" if met else "**no**") if goals else "",
        measured=f"{time.strftime('%Y-%m-%d')}, {machine()}",
    )
    FIGURES.append(figure)
    shown = ", ".join(part for part in (ours, beside, f"ratio {ratio}" if ratio else "", *goals, figure.met) if part)
    print(f"{what}: {shown}", flush=True)  # noqa: T201
    return met


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    titles = [field.name for field in fields(Figure)]
    rows = [titles, ["---"] * len(titles), *(list(astuple(figure)) for figure in figures)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write_page(page: Path, figures: list[Figure]) -> None:
    """Write the figures into the table of `page`: a row that it has already is replaced, the others stay."""
    text = page.read_text() if page.exists() else ""
    former = [re.split(r" \| ", line[2:-2]) for line in text.splitlines() if line.startswith("| ")][2:]
    names = [field.name for field in fields(Figure)]
    known = [Figure(**dict(zip(names, row, strict=True))) for row in former]
    rows = {(figure.what, figure.beside.split(":")[0]): figure for figure in [*known, *figures]}
    page.write_text(f"{_HEADER}{_INTRODUCTION}\n{table(list(rows.values()))}")


def _number(value: float) -> str:
    """Three significant digits, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """The processors of this machine."""
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} x {found[1].strip() if found else platform.machine()}"
