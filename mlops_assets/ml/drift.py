"""Drift of features between a reference and later windows, by NannyML: per feature, and of all together.

One fit serves all windows. NannyML's own thresholds (three standard deviations of the reference's chunks) alert on
stationary data too, so an alert here also needs an effect: see `DriftSettings.effect_floors`. Whether alerts call for a
retraining is decided elsewhere.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mlops_assets.ml.drift_calculators import reconstruction_rows, univariate_rows
from mlops_assets.ml.drift_result import ALL_FEATURES, RECONSTRUCTION_ERROR, DriftResult, DriftRow, DriftSettings
from mlops_assets.ml.matrix import FeatureSchema, to_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ALL_FEATURES", "OTHER_CATEGORY", "DriftResult", "DriftRow", "DriftSettings", "compute_drift"]

OTHER_CATEGORY = "(other)"


def compute_drift(
    *,
    reference: pa.Table,
    windows: Sequence[tuple[str, pa.Table]],
    schema: FeatureSchema,
    settings: DriftSettings,
    reference_chunk_column: str | None,
    key_column: str | None,
) -> DriftResult:
    """Measure the drift of each of `windows` (name and rows) from `reference`.

    `reference_chunk_column` names a column of the reference whose values (such as the week) cut it into the chunks that
    give the thresholds; with None the chunks are equal pieces in row order, so order the rows by time, or shuffle them where
    the order of the source has no meaning. `key_column` identifies rows and is needed with `settings.maximum_rows`.
    Infinite numbers count as missing. Raises ValueError on an empty reference or window, windows of the same name, a
    reference that gives fewer than two chunks, and a method without effect floor.
    """
    names = [name for name, _ in windows]
    _check(reference, windows, names, settings)
    reference = _sample(reference, key_column, settings.maximum_rows)
    sampled = [_sample(table, key_column, settings.maximum_rows) for _, table in windows]
    reference_frame = _finite(to_frame(reference, schema), schema)
    codes = _chunk_codes(reference, reference_chunk_column, settings.reference_chunks)
    # Stable: within a chunk, and between equal pieces, the row order stays.
    reference_frame = reference_frame.iloc[np.argsort(codes, kind="stable")].set_axis(np.sort(codes), axis=0)
    frame = _finite(to_frame(pa.concat_tables([table.select(list(schema.names)) for table in sampled]), schema), schema)
    frame.index = np.repeat(np.arange(len(sampled)), [table.num_rows for table in sampled])
    collapsed = _collapse_rare(reference_frame, frame, schema, settings.maximum_categories)
    known = [name for name in schema.names if reference_frame[name].notna().any()]
    univariate = univariate_rows(reference_frame, frame, schema, known, settings, names)
    together = [name for name in known if name not in collapsed]
    multivariate = reconstruction_rows(reference_frame, frame, together, settings, names) if len(together) > 1 else []
    order = {name: position for position, name in enumerate(names)}
    return DriftResult(
        rows=tuple(sorted([*univariate, *multivariate], key=lambda row: order[row.window])),
        reference_rows=reference.num_rows,
        window_rows={name: table.num_rows for name, table in zip(names, sampled, strict=True)},
        collapsed_features=collapsed,
        excluded_from_reconstruction=tuple(name for name in schema.names if name not in together),
    )


def _check(reference: pa.Table, windows: Sequence[tuple[str, pa.Table]], names: list[str], settings: DriftSettings) -> None:
    if not windows or len(set(names)) < len(names):
        raise ValueError(f"Drift needs at least one window, and names that differ; got {names}.")
    empty = ["the reference"] if reference.num_rows == 0 else []
    empty += [f"window {name}" for name, table in windows if table.num_rows == 0]
    if empty:
        raise ValueError(f"No rows in {', '.join(empty)}: drift of nothing cannot be measured.")
    methods = {*settings.continuous_methods, *settings.categorical_methods, RECONSTRUCTION_ERROR}
    without = sorted(methods - set(settings.effect_floors))
    if without:
        raise ValueError(f"effect_floors has no floor of {', '.join(without)}: add one (0 alerts on NannyML's threshold alone).")


def _sample(table: pa.Table, key_column: str | None, maximum_rows: int | None) -> pa.Table:
    if maximum_rows is None or table.num_rows <= maximum_rows:
        return table
    if key_column is None:
        raise ValueError("maximum_rows needs a key_column, whose hash says which rows are read.")
    from pandas.util import hash_array

    hashes = hash_array(table.column(key_column).cast(pa.string()).to_numpy(zero_copy_only=False).astype(object))
    chosen = np.sort(np.argsort(hashes, kind="stable")[:maximum_rows])
    return table.take(pa.array(chosen))


def _finite(frame: "pd.DataFrame", schema: FeatureSchema) -> "pd.DataFrame":
    for name in schema.numeric:
        values = frame[name].to_numpy(dtype=np.float64)
        frame[name] = np.where(np.isfinite(values), values, np.nan)
    return frame


def _chunk_codes(reference: pa.Table, column: str | None, pieces: int) -> np.ndarray:
    if column is None:
        codes = np.arange(reference.num_rows) * min(pieces, reference.num_rows) // reference.num_rows
    else:
        codes = np.unique(
            reference.column(column).cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False), return_inverse=True
        )[1]
    if codes.max() < 1:
        raise ValueError("The reference gives one chunk, which has no spread to set a threshold from: give it two or more.")
    return codes


def _collapse_rare(
    reference: "pd.DataFrame", frame: "pd.DataFrame", schema: FeatureSchema, maximum_categories: int
) -> tuple[str, ...]:
    collapsed = []
    for name in schema.categorical:
        counts = reference[name].value_counts()
        if len(counts) > maximum_categories:
            # By count, then by name: ties do not depend on the row order.
            ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
            kept = {value for value, _ in ranked[:maximum_categories]}
            for each in (reference, frame):
                each[name] = each[name].where(each[name].isin(kept), OTHER_CATEGORY)
            collapsed.append(name)
    return tuple(collapsed)
