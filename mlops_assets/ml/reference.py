"""The reference of a model version: its data, summarised per slice and column in tables of a few thousand rows.

Bins are those of NannyML 0.13.1 (`nannyml/drift/univariate/methods.py`), so that distances equal its own: Doane's rule for the Jensen-Shannon
distance; for the Wasserstein distance the values themselves, from 10,000 rows on 10,000 bins of equal width. Comparing belongs elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WHOLE = ""
"""The slice that holds all rows."""

OTHER_CATEGORY = "(other)"
MAXIMUM_CATEGORIES = 100
"""Of a column with more categories than this those are kept that have a share of 1 % and 30 rows; the others count as one. Rare values differ
between any two samples, and the most frequent of many rare ones are so by chance."""

_KEPT_SHARE, _KEPT_ROWS = 0.01, 30

MINIMUM_SLICE_ROWS = 200

_BINNED_FROM_ROWS, _WASSERSTEIN_BINS = 10_000, 10_000

Kind = Literal["feature", "prediction", "label"]


@dataclass(frozen=True)
class MonitoredColumn:
    """A column that is compared: a feature, the prediction or the label; numeric or categorical."""

    name: str
    kind: Kind
    numeric: bool


COLUMN_SCHEMA = pa.schema(
    [
        ("slice", pa.string()),
        ("feature", pa.string()),
        ("kind", pa.string()),
        ("numeric", pa.bool_()),
        ("rows", pa.int64()),
        ("missing", pa.int64()),
        ("most_frequent", pa.int64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("bins", pa.int64()),
        ("deciles", pa.list_(pa.float64())),
        ("wasserstein_bins", pa.int64()),
        ("standard_deviation", pa.float64()),
        ("bridge_scale", pa.float64()),
        ("collapsed", pa.bool_()),
    ]
)
"""One row per slice and column. `rows` have a value (finite, if numeric), `most_frequent` of them the same one. `bins` of equal width lie
between `low` and `high`; `wasserstein_bins` is 0 where values are kept as they are. `bridge_scale` is the integral of sqrt(F (1 - F)) over the
values, F their distribution function."""

MASS_SCHEMA = pa.schema(
    [
        ("slice", pa.string()),
        ("feature", pa.string()),
        ("binning", pa.string()),
        ("bin", pa.string()),
        ("position", pa.float64()),
        ("rows", pa.int64()),
    ]
)
"""Rows of the reference by bin: `binning` is `equal_width`, `decile` or `category`, which name a `bin`, or `wasserstein`, which has a
`position`: the value, or the number of its bin."""


@dataclass(frozen=True)
class Reference:
    """The summary: tables of `COLUMN_SCHEMA` and `MASS_SCHEMA`, and how many rows it is of."""

    columns: pa.Table
    masses: pa.Table
    rows: int


def summarise(table: pa.Table, monitored: Sequence[MonitoredColumn], slices: Sequence[str]) -> Reference:
    """Summarise `table`: all its rows, and the rows of each value of the columns `slices` that has 200 of them."""
    columns: list[dict] = []
    masses: list[pa.Table] = []
    for name, rows in row_slices(table, slices).items():
        for monitored_column in monitored:
            column = rows.column(monitored_column.name)
            described, binned = _numeric(column, wasserstein=name == WHOLE) if monitored_column.numeric else _categorical(column)
            columns.append(
                {
                    "slice": name,
                    "feature": monitored_column.name,
                    "kind": monitored_column.kind,
                    "numeric": monitored_column.numeric,
                    **described,
                }
            )
            masses += [_masses(name, monitored_column.name, binning, parts) for binning, parts in binned.items()]
    return Reference(
        columns=pa.Table.from_pylist(columns, schema=COLUMN_SCHEMA),
        masses=pa.concat_tables([MASS_SCHEMA.empty_table(), *masses]),
        rows=table.num_rows,
    )


def slice_name(column: str, value: str) -> str:
    """Return the name of a slice, the same in every report."""
    return f"{column} = {value}"


def row_slices(table: pa.Table, slices: Sequence[str]) -> dict[str, pa.Table]:
    """All rows of `table`, and those of each value of the columns `slices` that has 200 of them, by the name of the slice."""
    tables = {WHOLE: table}
    for column in slices:
        values = table.column(column).cast(pa.string())
        counts = {entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist() if entry["values"] is not None}
        for value in sorted(value for value, count in counts.items() if count >= MINIMUM_SLICE_ROWS):
            tables[slice_name(column, value)] = table.filter(pc.equal(values, value))
    return tables


def _numeric(column: pa.ChunkedArray, *, wasserstein: bool) -> tuple[dict, dict[str, dict]]:
    # Null is NaN from here on.
    numbers = column.cast(pa.float64(), safe=False).to_numpy()
    values = np.sort(numbers[np.isfinite(numbers)])
    described: dict = {"rows": len(values), "missing": int(np.isnan(numbers).sum()), "collapsed": False}
    if not len(values):
        return described, {}
    edges = _bin_edges(values)
    deciles = np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9)))
    distinct, counts = np.unique(values, return_counts=True)
    distribution = np.cumsum(counts) / len(values)
    described |= {
        "most_frequent": int(counts.max()),
        "low": float(edges[0]),
        "high": float(edges[-1]),
        "bins": len(edges) - 1,
        "deciles": deciles.tolist(),
        "standard_deviation": float(np.std(values)),
        "bridge_scale": float(np.sum(np.sqrt(distribution * (1 - distribution))[:-1] * np.diff(distinct))),
    }
    binned = {
        "equal_width": _named(np.histogram(values, bins=edges)[0]),
        "decile": _named(np.bincount(np.searchsorted(deciles, values, side="left"))),
    }
    if wasserstein:
        described["wasserstein_bins"] = 0
        binned["wasserstein"] = {"position": distinct, "rows": counts}
        if len(values) >= _BINNED_FROM_ROWS and distinct[0] < distinct[-1]:
            described["wasserstein_bins"] = _WASSERSTEIN_BINS
            histogram, _ = np.histogram(values, bins=_WASSERSTEIN_BINS)
            held = np.flatnonzero(histogram)
            binned["wasserstein"] = {"position": held.astype(np.float64), "rows": histogram[held]}
    return described, binned


def _bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of bins of equal width, as many as Doane's rule gives; of one bin where the sorted `values` are too near for more."""
    try:
        return np.histogram_bin_edges(values, bins="doane")
    except ValueError:
        # NumPy's word for bins that are narrower than the distance of two floating-point numbers.
        return np.array([np.nextafter(values[0], -np.inf), np.nextafter(values[-1], np.inf)])


def _categorical(column: pa.ChunkedArray) -> tuple[dict, dict[str, dict]]:
    known = column.cast(pa.string()).drop_null()
    counts = {entry["values"]: entry["counts"] for entry in known.value_counts().to_pylist()}
    most_frequent = max(counts.values(), default=0)
    if collapsed := len(counts) > MAXIMUM_CATEGORIES:
        kept = {value: count for value, count in counts.items() if count >= max(_KEPT_SHARE * len(known), _KEPT_ROWS)}
        counts = kept | {OTHER_CATEGORY: len(known) - sum(kept.values())}
    # Sorted, so that equal rows give equal tables.
    described = {
        "rows": len(known),
        "missing": column.null_count,
        "most_frequent": most_frequent,
        "collapsed": collapsed,
    }
    return described, {"category": {"bin": sorted(counts), "rows": [counts[value] for value in sorted(counts)]}}


def _named(counts: np.ndarray) -> dict:
    held = np.flatnonzero(counts)
    return {"bin": [str(position) for position in held], "rows": counts[held]}


def _masses(name: str, feature: str, binning: str, parts: dict[str, Any]) -> pa.Table:
    size = len(parts["rows"])
    return pa.table(
        {
            "slice": pa.repeat(name, size),
            "feature": pa.repeat(feature, size),
            "binning": pa.repeat(binning, size),
            "bin": pa.array(parts.get("bin", [None] * size), pa.string()),
            "position": pa.array(parts.get("position", [None] * size), pa.float64()),
            "rows": pa.array(parts["rows"], pa.int64()),
        },
        schema=MASS_SCHEMA,
    )
