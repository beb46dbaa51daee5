"""Distances of windows from a reference, in SQL where the rows are: only one row per window, slice, column and method leaves the engine.

- Jensen-Shannon distance (base 2) and Wasserstein distance as NannyML 0.13.1 computes them, chi-square statistic as
  `scipy.stats.chi2_contingency` (which NannyML calls) does, with Yates' correction for two categories.
- Population stability index over the deciles of the reference, or its categories, with half a row added to every bin, so that an empty one has
  a finite logarithm.

Slices are measured by the Jensen-Shannon distance alone.

Missing and infinite values count nowhere. Which distance is an alert is decided in `ml/drift.py`.
"""

from collections.abc import Sequence

import duckdb

from mlops_assets.lake.sql import literal, quote
from mlops_assets.ml.drift import Distance
from mlops_assets.ml.reference import OTHER_CATEGORY, WHOLE, Reference, slice_name
from mlops_assets.schema.column_names import internal


def measure_distances(
    connection: duckdb.DuckDBPyConnection, *, rows: str, window: str, slices: Sequence[str], reference: Reference
) -> list[Distance]:
    """The distances of every window in `rows` (a table, or a query in parentheses, with the column `window`) from `reference`.

    Columns that the rows lack are not measured, nor are slices that the reference does not know.
    """
    connection.register("reference_columns", reference.columns)
    connection.register("reference_masses", reference.masses)
    present = {row[0] for row in connection.execute(f"DESCRIBE FROM {rows}").fetchall()}
    described = reference.columns.select(["feature", "numeric"]).to_pylist()
    numeric = list(dict.fromkeys(column["feature"] for column in described if column["numeric"] and column["feature"] in present))
    texts = list(
        dict.fromkeys(column["feature"] for column in described if not column["numeric"] and column["feature"] in present)
    )
    # Materialised, since several branches read them and one pass over the rows is most of the work.
    observed = _observed(rows, window, slices, numeric, texts)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE observed_values AS {observed}")
    distances = connection.execute(f"{_DISTANCES} ORDER BY ALL").fetchall()
    connection.execute("DROP TABLE temp.main.observed_values")
    return [Distance(*row) for row in distances]


def _observed(rows: str, window: str, slices: Sequence[str], numeric: Sequence[str], texts: Sequence[str]) -> str:
    """SQL for how often each window and slice holds each value of each column: `value` of numeric ones, `text` of the others."""
    names = ", ".join(
        [literal(WHOLE), *(f"{literal(slice_name(name, ''))} || CAST({quote(name)} AS VARCHAR)" for name in slices)]
    )
    # Beside columns of the data until they are unpivoted.
    w, s, feature, v = map(internal, ("window", "slice", "feature", "value"))
    parts = []
    for columns, kind, value, text in ((numeric, "DOUBLE", v, "NULL"), (texts, "VARCHAR", "NULL", v)):
        if columns:
            cast = ", ".join(f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name in columns)
            sliced = f"SELECT CAST({quote(window)} AS VARCHAR) AS {w}, unnest([{names}]) AS {s}, {cast} FROM {rows}"
            listed = ", ".join(map(quote, columns))
            parts.append(
                f"SELECT {w} AS w, {s} AS s, {feature} AS feature, CAST({value} AS DOUBLE) AS value, CAST({text} AS VARCHAR) AS text, "
                f"count(*) AS n FROM (UNPIVOT ({sliced}) ON {listed} INTO NAME {feature} VALUE {v}) "
                f"WHERE {s} IS NOT NULL {f'AND isfinite({v})' if kind == 'DOUBLE' else ''} GROUP BY ALL"
            )
    return " UNION ALL ".join(parts)


# A bin of equal width by numpy's own rule: moved by one where rounding put the value beyond an edge; the last bin is closed. Null outside.
_BIN = """CASE WHEN value < low OR value > high THEN NULL
    WHEN value < {at} * step + low THEN {at} - 1
    WHEN value >= ({at} + 1) * step + low AND {at} < {bins} - 1 THEN {at} + 1
    ELSE {at} END"""


def _bin(bins: str) -> str:
    return _BIN.format(at=f"greatest(0, least({bins} - 1, floor((value - low) / step)))", bins=bins)


_OBSERVED = """observed_values o JOIN reference_columns r ON r.slice = o.s AND r.feature = o.feature AND r.rows > 0"""

# Sums of fractions are ordered: in parallel their last digits would differ from run to run.
# Rows by bin, of the window and of the reference side by side: q and p of n and m rows, k bins that either has rows in.
_CELLS = f"""
numbers AS (
    SELECT w, s, o.feature, value, n, low, high, bins, deciles, wasserstein_bins FROM {_OBSERVED} WHERE r.numeric
),
binned AS (
    SELECT w, s, feature, 'equal_width' AS binning, coalesce(CAST(CAST({_bin("bins")} AS BIGINT) AS VARCHAR), 'outside') AS bin, sum(n) AS n
    FROM (SELECT *, (high - low) / bins AS step FROM numbers) GROUP BY ALL
    UNION ALL
    SELECT w, s, feature, 'decile', CAST(len(list_filter(deciles, lambda edge: edge < value)) AS VARCHAR), sum(n) FROM numbers GROUP BY ALL
    UNION ALL
    SELECT w, s, o.feature, 'category', CASE WHEN r.collapsed AND m.bin IS NULL THEN {literal(OTHER_CATEGORY)} ELSE o.text END, sum(o.n)
    FROM {_OBSERVED}
    LEFT JOIN reference_masses m ON m.slice = o.s AND m.feature = o.feature AND m.binning = 'category' AND m.bin = o.text
    WHERE NOT r.numeric GROUP BY ALL
),
totals AS (SELECT w, s, feature, binning, sum(n) AS n FROM binned GROUP BY ALL),
both_sides AS (
    SELECT w, s, feature, binning, bin, sum(q) AS q, sum(p) AS p FROM (
        SELECT w, s, feature, binning, bin, n AS q, 0 AS p FROM binned
        UNION ALL
        SELECT t.w, t.s, t.feature, t.binning, r.bin, 0, r.rows
        FROM totals t JOIN reference_masses r ON r.slice = t.s AND r.feature = t.feature AND r.binning = t.binning
    ) GROUP BY ALL
),
cells AS (
    SELECT b.w, b.s, b.feature, b.binning, b.bin, CAST(b.q AS DOUBLE) AS q, CAST(b.p AS DOUBLE) AS p, CAST(t.n AS DOUBLE) AS n,
        CAST(r.rows AS DOUBLE) AS m, count(*) OVER (PARTITION BY b.w, b.s, b.feature, b.binning) AS k
    FROM both_sides b JOIN totals t USING (w, s, feature, binning)
    JOIN reference_columns r ON r.slice = b.s AND r.feature = b.feature
)"""

_BY_BINS = """
terms AS (
    SELECT *, p / m AS p_share, q / n AS q_share, (p / m + q / n) / 2 AS middle,
        (p + 0.5) / (m + 0.5 * k) AS p_smooth, (q + 0.5) / (n + 0.5 * k) AS q_smooth,
        (p + q) * m / (m + n) AS p_expected, (p + q) * n / (m + n) AS q_expected,
        CASE WHEN k = 2 THEN least(0.5, abs(p - p_expected)) ELSE 0 END AS yates
    FROM cells
),
by_bins AS (
    SELECT w, s, feature, binning, CAST(any_value(n) AS BIGINT) AS n, any_value(k) AS k,
        sqrt(greatest(0, sum(
            CASE WHEN p > 0 THEN p_share * ln(p_share / middle) ELSE 0 END + CASE WHEN q > 0 THEN q_share * ln(q_share / middle) ELSE 0 END
            ORDER BY bin
        ) / 2 / ln(2))) AS jensen_shannon,
        sum((q_smooth - p_smooth) * ln(q_smooth / p_smooth) ORDER BY bin) AS population_stability_index,
        sum((abs(p - p_expected) - yates) ** 2 / p_expected + (abs(q - q_expected) - yates) ** 2 / q_expected ORDER BY bin) AS chi2
    FROM terms GROUP BY ALL
)"""

# The area between the two distribution functions. Positions are values, or numbers of bins with what lies outside to scale.
_BY_VALUES = f"""
positions AS (
    SELECT w, s, feature, n, step, wasserstein_bins AS edge,
        CASE WHEN wasserstein_bins = 0 THEN value WHEN value < low OR value > high THEN (value - low) / step
            ELSE {_bin("wasserstein_bins")} END AS position
    FROM (
        SELECT *, CASE WHEN wasserstein_bins = 0 THEN 1 ELSE (high - low) / wasserstein_bins END AS step
        FROM numbers WHERE wasserstein_bins IS NOT NULL
    )
),
sizes AS (
    SELECT w, s, feature, any_value(step) AS step, any_value(edge) AS edge, CAST(sum(n) AS BIGINT) AS n,
        -- As NannyML does: with values below the reference it counts one row too many under every bin.
        CASE WHEN any_value(edge) > 0 AND min(position) < 0 THEN 1 / sum(n) ELSE 0 END AS surplus
    FROM positions GROUP BY ALL
),
steps AS (
    SELECT w, s, feature, position, sum(q) AS q, sum(p) AS p FROM (
        SELECT w, s, feature, position, n AS q, 0 AS p FROM positions
        UNION ALL
        SELECT d.w, d.s, d.feature, r.position, 0, r.rows
        FROM sizes d JOIN reference_masses r ON r.slice = d.s AND r.feature = d.feature AND r.binning = 'wasserstein'
        UNION ALL
        SELECT w, s, feature, CAST(edge AS DOUBLE), 0, 0 FROM sizes WHERE edge > 0
    ) GROUP BY ALL
),
curves AS (
    SELECT w, s, feature, position, lead(position) OVER along - position AS gap, sum(q) OVER along AS q, sum(p) OVER along AS p
    FROM steps WINDOW along AS (PARTITION BY w, s, feature ORDER BY position)
),
by_values AS (
    SELECT c.w, c.s, c.feature, any_value(d.n) AS n, any_value(d.step) * coalesce(sum(c.gap * abs(
            c.p / r.rows - c.q / d.n - CASE WHEN c.position >= 0 AND c.position < d.edge THEN d.surplus ELSE 0 END
        ) ORDER BY c.position), 0) AS wasserstein
    FROM curves c JOIN sizes d USING (w, s, feature) JOIN reference_columns r ON r.slice = c.s AND r.feature = c.feature
    GROUP BY ALL
)"""

_DISTANCES = f"""
WITH {_CELLS}, {_BY_BINS}, {_BY_VALUES}
SELECT w, s, feature, 'jensen_shannon' AS method, jensen_shannon AS value, n, k FROM by_bins WHERE binning <> 'decile'
UNION ALL
SELECT w, s, feature, 'population_stability_index', population_stability_index, n, k FROM by_bins
WHERE binning <> 'equal_width' AND s = {literal(WHOLE)}
UNION ALL
SELECT w, s, feature, 'chi2', chi2, n, k FROM by_bins WHERE binning = 'category' AND k > 1 AND s = {literal(WHOLE)}
UNION ALL
SELECT w, s, feature, 'wasserstein', wasserstein, n, 0 FROM by_values"""
