"""Checks of the training table at the boundary to scikit-learn: values, duplicates, missing, constant columns, label rate.

Each function measures and returns; which finding blocks is decided by the asset checks. Checks of tables in the lake are SQL
and live with the lake.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlops_assets.ml.matrix import FeatureSchema

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pandera

_EXAMPLES = 5


@dataclass(frozen=True)
class Failure:
    """Values of `column` that fail `check`: how many, and some of them as text. `column` is "*" for the frame as a whole."""

    column: str
    check: str
    count: int
    examples: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class DominantValue:
    """A column of which the share `share` of the rows is `value` (as text; "null" where missing)."""

    column: str
    value: str
    share: float

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Duplicates:
    """How many rows repeat a key that an earlier row has, and some such keys."""

    count: int
    examples: tuple[Mapping[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def frame_schema(
    schema: FeatureSchema, ranges: Mapping[str, tuple[float | None, float | None]], categories: Mapping[str, Sequence[str]]
) -> "pandera.DataFrameSchema":
    """The pandera schema of a frame from `matrix.to_frame`: exact columns in order, types, no infinite number.

    `ranges` bounds numeric features (inclusive; None leaves a side open) and `categories` lists the allowed values of
    categorical ones; missing values are allowed. Raises ValueError on a name that is no such feature.
    """
    import pandera.pandas as pandera

    for given, names, kind in ((ranges, schema.numeric, "numeric"), (categories, schema.categorical, "categorical")):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"No {kind} feature {', '.join(unknown)}: there are {', '.join(names) or 'none'}.")
    columns = {}
    for name in schema.numeric:
        checks = [pandera.Check(lambda values: ~np.isinf(values), name="finite")]
        low, high = ranges.get(name, (None, None))
        if low is not None:
            checks.append(pandera.Check.ge(low))
        if high is not None:
            checks.append(pandera.Check.le(high))
        columns[name] = pandera.Column("float32", checks, nullable=True)
    for name in schema.categorical:
        checks = [pandera.Check(lambda values: values.map(lambda value: isinstance(value, str)), name="string")]
        if name in categories:
            checks.append(pandera.Check.isin(["", *categories[name]]))
        columns[name] = pandera.Column(object, checks, nullable=False)
    return pandera.DataFrameSchema(columns, strict=True, ordered=True)


def validate_frame(frame: "pd.DataFrame", schema: "pandera.DataFrameSchema") -> tuple[Failure, ...]:
    """Every failure of `frame` against `schema`, by column and check; empty when the frame is valid."""
    from pandera.errors import SchemaErrors

    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        failures = []
        for (column, check), group in cases.groupby([cases["column"].fillna("*").astype(str), cases["check"].astype(str)]):
            examples = tuple(str(value) for value in group["failure_case"].drop_duplicates().head(_EXAMPLES))
            failures.append(Failure(column=column, check=check, count=len(group), examples=examples))
        return tuple(failures)
    return ()


def duplicate_keys(table: pa.Table, key: Sequence[str]) -> Duplicates:
    """Rows of `table` whose `key` columns repeat those of an earlier row; null equals null."""
    counts = table.select(list(key)).group_by(list(key)).aggregate([([], "count_all")])
    repeated = counts.filter(pc.greater(counts["count_all"], 1)).sort_by([(name, "ascending") for name in key])
    examples = repeated.select(list(key)).slice(0, _EXAMPLES).to_pylist()
    return Duplicates(
        count=table.num_rows - counts.num_rows,
        examples=tuple({name: str(value) for name, value in example.items()} for example in examples),
    )


def missing_shares(table: pa.Table) -> dict[str, float]:
    """The share of each column of `table` that is null or NaN, from 0 to 1; 0 for a table without rows."""
    shares = {}
    for name in table.column_names:
        column = table.column(name)
        missing = pc.sum(pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))).as_py() or 0
        shares[name] = missing / max(table.num_rows, 1)
    return shares


def dominant_values(table: pa.Table, names: Sequence[str], minimum_share: float) -> tuple[DominantValue, ...]:
    """The columns among `names` that are constant or nearly so: one value, or null, has at least `minimum_share` of the rows."""
    found = []
    for name in names:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        counts = pa.table({"value": column}).group_by("value").aggregate([([], "count_all")])
        if counts.num_rows == 0:
            continue
        top = counts.sort_by([("count_all", "descending")]).slice(0, 1).to_pylist()[0]
        share = top["count_all"] / table.num_rows
        if share >= minimum_share:
            found.append(DominantValue(column=name, value="null" if top["value"] is None else str(top["value"]), share=share))
    return tuple(found)


def label_rate(labels: np.ndarray) -> float:
    """The share of positives among binary `labels`. Raises ValueError when there are none at all."""
    if len(labels) == 0:
        raise ValueError("There are no labels: the label rate is not defined.")
    return float(np.mean(labels))
