"""The pandera schema of the frame that scikit-learn reads: columns in order, types, ranges, no infinity.

Which finding blocks is decided by the asset checks. What can be counted in the lake is counted there, in SQL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
