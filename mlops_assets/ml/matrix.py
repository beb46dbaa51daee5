"""The feature matrix: which columns are numeric or categorical, and how an Arrow table becomes what an estimator sees.

Numbers are float32 everywhere (a missing one is NaN) and categories are strings (a missing one is the empty string), so
that scikit-learn in training and ONNX Runtime in serving read the same values. Nothing here fits or transforms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

MISSING_CATEGORY = ""
_DTYPES = {pa.float32(): np.float32, pa.uint8(): np.uint8, pa.int32(): np.int32}


@dataclass(frozen=True)
class FeatureSchema:
    """Names of the numeric and the categorical features, each in the order the model reads them."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]

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


def numeric_matrix(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """The columns `names` of `table` as a float32 array [rows, len(names)]; null becomes NaN."""
    matrix = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for position, name in enumerate(names):
        column = _column(table, name)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        elif pa.types.is_boolean(column.type):
            column = column.cast(pa.uint8())
        start = 0
        for chunk in column.cast(pa.float32(), safe=False).chunks:
            target = matrix[start : start + len(chunk), position]
            target[:] = _plain(chunk)
            if chunk.null_count:
                target[_plain(chunk.is_null().cast(pa.uint8())).astype(bool)] = np.nan
            start += len(chunk)
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

    numeric = pd.DataFrame(numeric_matrix(table, schema.numeric), columns=list(schema.numeric))
    categorical = pd.DataFrame(categorical_matrix(table, schema.categorical), columns=list(schema.categorical))
    return pd.concat([numeric, categorical], axis=1)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise ValueError(f"The table has no column {name!r}. It has {', '.join(table.column_names)}.")
    return table.column(name)


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
