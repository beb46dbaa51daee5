"""Calls of NannyML: without telemetry, in chunks that are windows, without warnings that do not concern the data."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.schema.column_names import internal

if TYPE_CHECKING:
    import pandas as pd


def import_nannyml() -> Any:
    """The package, imported in the call that needs it: that takes seconds."""
    import nannyml

    return nannyml


def index_chunker() -> Any:
    """A chunker that cuts a frame where its sorted integer index changes.

    NannyML's own chunkers cut by count or by calendar, and it hands the chunker one column at a time: only the index can say to which
    window a row belongs. A reference with one index value is one chunk.
    """
    package = import_nannyml()

    class IndexChunker(package.Chunker):  # type: ignore[name-defined]
        def _split(self, data: "pd.DataFrame") -> list[Any]:
            index = data.index.to_numpy()
            starts = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
            ends = np.r_[starts[1:], len(index)]
            return [
                package.Chunk(key=str(index[start]), data=data.iloc[start:end]) for start, end in zip(starts, ends, strict=True)
            ]

    return IndexChunker()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence the warnings of NannyML's code: few chunks, writing to its own slices, a metric that rows of one class do not define."""
    from pandas.errors import PerformanceWarning, SettingWithCopyWarning

    with warnings.catch_warnings():
        for message in (
            "The resulting number of chunks is too low",
            ".*contains? (a single|only one) class",
            "Too (few|many) ",
            "Not enough data",
        ):
            warnings.filterwarnings("ignore", message=message)
        for category in (SettingWithCopyWarning, PerformanceWarning):
            warnings.simplefilter("ignore", category)
        yield


def feature_columns(schema: FeatureSchema) -> list[str]:
    """The columns of `feature_frame`, by the position of the feature: LightGBM refuses names with quotes, commas or brackets."""
    return [internal(f"feature_{position}") for position in range(len(schema.names))]


def feature_frame(tables: Sequence[pa.Table], schema: FeatureSchema) -> "pd.DataFrame":
    """The features of all `tables`, one after the other, indexed by the position of their table; infinite numbers count as missing.

    The columns are called as `feature_columns` says.
    """
    frame = to_frame(pa.concat_tables([table.select(list(schema.names)) for table in tables]), schema)
    for name in schema.numeric:
        values = frame[name].to_numpy()
        if not np.isfinite(values).all():
            frame[name] = np.where(np.isfinite(values), values, np.nan)
    frame.columns = feature_columns(schema)
    frame.index = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    return frame
