"""The feature matrix: which columns are numeric or categorical, and how an Arrow table becomes what an estimator sees.

Numbers are float32 everywhere (a missing one is NaN) and categories are strings (a missing one is the empty string), so
that scikit-learn in training and ONNX Runtime in serving read the same values. Nothing here fits or transforms.

float32 has 24 binary digits: of epoch seconds it keeps every 128th. A feature whose values need more has an origin, a number that is
subtracted in float64 before the conversion; the training rows decide, and the contract keeps it. Whole numbers, of whatever type, and
decimals that no origin makes exact are refused: two values never become one. Other numbers keep seven digits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

MISSING_CATEGORY = ""
_DTYPES = {pa.float32(): np.float32, pa.float64(): np.float64, pa.uint8(): np.uint8, pa.int32(): np.int32}

_FAR = 1024
"""A feature with fractions has an origin when it lies so many times its own range from 0: float32 would leave it four digits."""


@dataclass(frozen=True)
class FeatureSchema:
    """Names of the numeric and the categorical features, each in the order the model reads them.

    `origins` are the numeric features whose values are counted from another number than 0, with that number.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    origins: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def names(self) -> tuple[str, ...]:
        """All features, numeric first: the column order of `to_frame`."""
        return self.numeric + self.categorical

    @classmethod
    def from_arrow(cls, schema: pa.Schema, names: Sequence[str]) -> "FeatureSchema":
        """Sort the features `names` into numeric (boolean, integer, float, decimal) and categorical (string, dictionary).

        Raises ValueError when a name is missing, given twice, or has a type that is neither.
        """
        repeated = sorted({name for name in names if list(names).count(name) > 1})
        if repeated:
            raise ValueError(f"Features given twice: {', '.join(repeated)}. Name each feature once.")
        missing = [name for name in names if name not in schema.names]
        if missing:
            raise ValueError(f"No such column: {', '.join(missing)}. The table has {', '.join(schema.names)}.")
        numeric, categorical = [], []
        for name in names:
            kind = schema.field(name).type
            if _is_numeric(kind):
                numeric.append(name)
            elif _is_text(kind) or (pa.types.is_dictionary(kind) and _is_text(kind.value_type)):
                categorical.append(name)
            else:
                raise ValueError(
                    f"Column {name!r} has type {kind}, which no model reads: cast it to a number or to a string, "
                    "or leave it out of the features."
                )
        return cls(numeric=tuple(numeric), categorical=tuple(categorical))

    def from_origin(self, values: np.ndarray) -> np.ndarray:
        """The float64 `values` [rows, numeric features] as the model reads them: float32, each counted from the feature's origin."""
        if self.origins:
            values = values - np.array([self.origins.get(name, 0.0) for name in self.numeric])
        with np.errstate(over="ignore"):
            return values.astype(np.float32)


def with_origins(schema: FeatureSchema, table: pa.Table) -> FeatureSchema:
    """`schema` with an origin for each numeric feature whose values in `table` float32 would not keep apart.

    Raises ValueError for whole numbers or decimals of which some become equal whatever the origin.
    """
    origins = {}
    for name in schema.numeric:
        values = exact_matrix(table, [name])[:, 0]
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        low, high = float(values.min()), float(values.max())
        kind = table.schema.field(name).type
        middle = float(np.floor(low / 2 + high / 2))
        if pa.types.is_floating(kind) and not _is_whole(values):
            if max(abs(low), abs(high)) > _FAR * (high - low) > 0:
                origins[name] = middle
        elif not _kept_apart(values, 0.0):
            if not _kept_apart(values, middle):
                raise ValueError(_merged(name, kind, values, middle))
            origins[name] = middle
    return replace(schema, origins=origins)


def numeric_matrix(table: pa.Table, names: Sequence[str], origins: Mapping[str, float] | None = None) -> np.ndarray:
    """The columns `names` of `table` as a float32 array [rows, len(names)], counted from their `origins`; null becomes NaN."""
    matrix = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for position, name in enumerate(names):
        origin = (origins or {}).get(name)
        for rows, values in _chunks(table, name, pa.float32() if origin is None else pa.float64()):
            with np.errstate(over="ignore"):
                matrix[rows, position] = values if origin is None else values - origin
    return matrix


def exact_matrix(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """The columns `names` of `table` as a float64 array [rows, len(names)], from no origin; null becomes NaN."""
    matrix = np.empty((table.num_rows, len(names)), dtype=np.float64)
    for position, name in enumerate(names):
        for rows, values in _chunks(table, name, pa.float64()):
            matrix[rows, position] = values
    return matrix


def categorical_matrix(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """The columns `names` of `table` as an object array of strings [rows, len(names)]; null becomes the empty string."""
    matrix = np.empty((table.num_rows, len(names)), dtype=object)
    for position, name in enumerate(names):
        column = _column(table, name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        start = 0
        # Encoded first, so that equal values share one Python string.
        for chunk in column.cast(pa.string()).dictionary_encode(null_encoding="encode").chunks:
            values = np.array(
                [MISSING_CATEGORY if value is None else value for value in chunk.dictionary.to_pylist()], dtype=object
            )
            matrix[start : start + len(chunk), position] = values[_plain(chunk.indices)]
            start += len(chunk)
    return matrix


def to_frame(table: pa.Table, schema: FeatureSchema) -> "pd.DataFrame":
    """The features of `table` as a frame: numeric columns as float32, then categorical ones as objects, in the schema's order."""
    import pandas as pd

    numeric = pd.DataFrame(numeric_matrix(table, schema.numeric, schema.origins), columns=list(schema.numeric))
    categorical = pd.DataFrame(categorical_matrix(table, schema.categorical), columns=list(schema.categorical))
    return pd.concat([numeric, categorical], axis=1)


def to_exact_frame(table: pa.Table, schema: FeatureSchema) -> "pd.DataFrame":
    """The frame of `to_frame` with its numbers in float64, before they are rounded to float32."""
    frame = to_frame(table, schema)
    exact = exact_matrix(table, schema.numeric)
    return frame.assign(
        **{name: exact[:, position] - schema.origins.get(name, 0.0) for position, name in enumerate(schema.numeric)}
    )


def _kept_apart(values: np.ndarray, origin: float) -> bool:
    """Whether different `values` are different float32 numbers when they are counted from `origin`; whole ones have to be exact."""
    counted = values - origin
    if (values == np.floor(values)).all():
        return _is_whole(values) and bool((counted.astype(np.float32) == counted).all())
    return len(np.unique(counted.astype(np.float32))) == len(np.unique(values))


def _is_whole(values: np.ndarray) -> bool:
    """Whether all `values` are whole numbers that float64 holds exactly; beyond, every float64 is a whole number."""
    return bool((values == np.floor(values)).all() and (np.abs(values) <= 2**53).all())


def _merged(name: str, kind: pa.DataType, values: np.ndarray, origin: float) -> str:
    before, after = len(np.unique(values)), len(np.unique((values - origin).astype(np.float32)))
    return (
        f"The feature {name} ({kind}) has values from {values.min():.17g} to {values.max():.17g}, which a model of float32 numbers does not "
        f"keep apart: {before} different ones would become {after}. Give the model a difference (such as the days since another event), a "
        "larger unit (a quotient in double keeps seven digits), or the text of an identifier."
    )


def _chunks(table: pa.Table, name: str, kind: pa.DataType) -> Iterator[tuple[slice, np.ndarray]]:
    """The values of a column in float32 or float64, chunk by chunk with the rows of each; a missing one is NaN."""
    column = _column(table, name)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    start = 0
    for chunk in column.cast(kind, safe=False).chunks:
        values = _plain(chunk)
        if chunk.null_count:
            values = np.where(_plain(chunk.is_null().cast(pa.uint8())).astype(bool), values.dtype.type(np.nan), values)
        yield slice(start, start + len(chunk)), values
        start += len(chunk)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    try:
        return table.column(name)
    except KeyError as error:
        raise ValueError(f"The table has no column {name!r}. It has {', '.join(table.column_names)}.") from error


def _plain(array: pa.Array) -> np.ndarray:
    """The values of a primitive array, nulls as they lie in memory.

    Unlike `to_numpy` and `fill_null` this does not import pandas, which a serving process does without.
    """
    kind = _DTYPES[array.type]
    if len(array) == 0:
        return np.empty(0, dtype=kind)
    return np.frombuffer(array.buffers()[1], dtype=kind)[array.offset : array.offset + len(array)]


def _is_numeric(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
