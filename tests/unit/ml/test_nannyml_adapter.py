"""The frame that NannyML reads: names that it takes, windows by index, no infinite numbers."""

import numpy as np
import pyarrow as pa

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.nannyml_adapter import feature_columns, feature_frame

SCHEMA = FeatureSchema(numeric=("a, [b]", 'q"'), categorical=("c{}",))


def table(numbers: list[float | None], texts: list[str | None]) -> pa.Table:
    columns = {"c{}": pa.array(texts, pa.string()), "a, [b]": pa.array(numbers, pa.float64())}
    return pa.table({**columns, 'q"': pa.array([1] * len(numbers), pa.int64())})


def test_windows_are_told_by_the_index_and_empty_ones_have_no_rows() -> None:
    tables = [table([1.0, np.inf], ["x", None]), table([], []), table([None, -np.inf, 2.5], ["x", "y", "z"])]
    frame = feature_frame(tables, SCHEMA)
    assert frame.index.tolist() == [0, 0, 2, 2, 2]
    first = frame[feature_columns(SCHEMA)[0]].tolist()
    assert [None if np.isnan(value) else value for value in first] == [1.0, None, None, None, 2.5]


def test_columns_are_named_by_position_alone() -> None:
    names = feature_columns(SCHEMA)
    assert len(set(names)) == 3
    assert all(name.isidentifier() for name in names)
    assert feature_frame([table([1.0], ["x"])], SCHEMA).columns.tolist() == names
