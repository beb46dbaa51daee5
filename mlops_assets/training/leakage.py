"""The share of the label that each single feature explains, whatever the form of the relation: measured in SQL, on held-out rows.

The correlation of `training/dataset_checks.py` sees lines. This sees a category that stands for a class, a code, a threshold in the middle.
"""

from collections.abc import Mapping

import duckdb

from mlops_assets.core.missing_values import finite_value, is_infinite, is_present
from mlops_assets.lake.sql import quote
from mlops_assets.schema.column_names import internal

MAXIMUM_ROWS = 20_000
"""Training rows that are looked at, chosen by the hash of their key: what gives the label away does so in any sample."""

_BINS = 64

_LABEL, _HALF, _FEATURE, _CATEGORY = map(internal, ("label", "half", "feature", "category"))


def explained_labels(
    connection: duckdb.DuckDBPyConnection, *, rows: str, key: str, label: str, features: Mapping[str, bool], regression: bool
) -> dict[str, float]:
    """The correlation ratio of the label with each of `features` (name -> whether it is numeric), from 0 to 1.

    Each feature is taken as categories: its values as they are, a missing one as a category of its own, and a numeric one also in 64
    bins of about equally many rows; the larger result counts. Half of the `rows` (a query in parentheses), chosen by the hash of `key`,
    gives the label's mean in each category, or the shares of its classes; the other half tells which share of the label's variance
    these explain: 1 - sum (y - m(x))^2 / sum (y - m)^2. Of classes, y is a vector with a 1 for the class, so that the share is the
    reduction of the Gini index, Goodman and Kruskal's tau ("Measures of association for cross classifications", 1954). The result is
    its root, Pearson's correlation ratio, which is the absolute correlation where the relation is a line.

    A category weighs one row more, with the mean of all rows: one of which the first half has no row explains nothing. A key, whose
    every value is new, has a ratio of 0.
    """
    if not features:
        return {}
    names = list(features)
    columns = [
        f"{_as_category(quote(name), numeric)} AS {internal(f'c{at}')}" for at, (name, numeric) in enumerate(features.items())
    ]
    columns += [
        f"{_as_bin(quote(name))} AS {internal(f'b{at}')}" for at, (name, numeric) in enumerate(features.items()) if numeric
    ]
    hashed = f"hash({quote(key)})"
    target = finite_value(quote(label)) if regression else f"CAST({quote(label)} AS VARCHAR)"
    sample = (
        f"SELECT {target} AS {_LABEL}, {hashed} // 2 % 2 AS {_HALF}, {', '.join(columns)} "
        f"FROM (FROM {rows} WHERE ({target}) IS NOT NULL ORDER BY {hashed}, {quote(key)} LIMIT {MAXIMUM_ROWS})"
    )
    categories = f"UNPIVOT ({sample}) ON COLUMNS(* EXCLUDE ({_LABEL}, {_HALF})) INTO NAME {_FEATURE} VALUE {_CATEGORY}"
    query = _OF_NUMBERS if regression else _OF_CLASSES
    results = connection.execute(query.format(categories=categories)).fetchall()
    shares = {name: max(share or 0.0, 0.0) for name, share in results}
    return {name: max(shares.get(internal(f"{kind}{at}"), 0.0) for kind in "cb") ** 0.5 for at, name in enumerate(names)}


def _as_category(name: str, numeric: bool) -> str:
    return f"CASE WHEN {is_present(name, numeric=numeric)} THEN 'is ' || CAST({name} AS VARCHAR) ELSE 'missing' END"


def _as_bin(name: str) -> str:
    value = finite_value(name)
    # By rank: equal values share a bin, whatever the order in which the rows come.
    place = f"CAST((rank() OVER (ORDER BY {value} NULLS LAST) - 1) * {_BINS} // count(*) OVER () AS VARCHAR)"
    return f"CASE WHEN {is_infinite(name)} THEN 'infinite' WHEN ({value}) IS NULL THEN 'missing' ELSE {place} END"


# One row a feature, category and class: `a` rows of the first half and `b` of the second.
_OF_CLASSES = f"""
WITH cells AS (
    SELECT {_FEATURE} AS feature, {_CATEGORY} AS category, {_LABEL} AS y,
        count(*) FILTER ({_HALF} = 0) AS a, count(*) FILTER ({_HALF} = 1) AS b
    FROM ({{categories}}) GROUP BY ALL
),
classes AS (SELECT feature, y, sum(a) / sum(sum(a)) OVER (PARTITION BY feature) AS q FROM cells GROUP BY feature, y),
usual AS (SELECT feature, sum(q * q) AS square FROM classes GROUP BY feature),
categories AS (
    SELECT feature, category, sum(a) + 1 AS n, sum(a * a + 2 * a * q) AS square
    FROM cells JOIN classes USING (feature, y) GROUP BY ALL
)
SELECT feature, 1 - sum(b * (1 - 2 * (a + q) / n + (c.square + u.square) / (n * n)) ORDER BY category, y)
    / nullif(sum(b * (1 - 2 * q + u.square) ORDER BY category, y), 0)
FROM cells JOIN classes USING (feature, y) JOIN categories c USING (feature, category) JOIN usual u USING (feature)
GROUP BY feature"""

_OF_NUMBERS = f"""
WITH long AS (FROM ({{categories}})),
scale AS (
    SELECT avg({_LABEL}) AS middle, coalesce(nullif(stddev_pop({_LABEL}), 0), 1) AS deviation FROM long WHERE {_HALF} = 0
),
cells AS (
    SELECT {_FEATURE} AS feature, {_CATEGORY} AS category,
        count(*) FILTER ({_HALF} = 0) AS a, count(*) FILTER ({_HALF} = 1) AS b,
        coalesce(sum(y) FILTER ({_HALF} = 0), 0) / (count(*) FILTER ({_HALF} = 0) + 1) AS m,
        coalesce(sum(y) FILTER ({_HALF} = 1), 0) AS total, coalesce(sum(y * y) FILTER ({_HALF} = 1), 0) AS square
    FROM (SELECT *, ({_LABEL} - middle) / deviation AS y FROM long, scale) GROUP BY ALL
)
SELECT feature, 1 - sum(square - 2 * m * total + b * m * m ORDER BY category) / nullif(sum(square ORDER BY category), 0)
FROM cells GROUP BY feature"""
