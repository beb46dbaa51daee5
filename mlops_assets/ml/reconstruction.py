"""Drift of all features together: how badly principal components of the reference reconstruct the rows of a window, by NannyML.

It finds changes in how features go together that no feature shows by itself. Alerts follow the rule of `drift.py`: the mean error of a window
must differ from the reference's by more than the standard errors of both explain, and by a share that matters.
"""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mlops_assets.ml.matrix import FeatureSchema, numeric_matrix
from mlops_assets.ml.nannyml_adapter import feature_columns, feature_frame, import_nannyml, index_chunker, without_warnings
from mlops_assets.ml.reference import MAXIMUM_CATEGORIES
from mlops_assets.ml.report_rows import ALL_FEATURES, RECONSTRUCTION_ERROR, DriftRow
from mlops_assets.ml.usual_drift import NOTHING_USUAL, UsualDrift

EFFECT_FLOOR = 0.05
"""The least relative change of the mean error that matters."""


def reconstruction_rows(
    reference: pa.Table,
    windows: Sequence[tuple[str, pa.Table]],
    schema: FeatureSchema,
    *,
    false_alarms: float,
    usual: UsualDrift = NOTHING_USUAL,
) -> list[DriftRow]:
    """The error of each of `windows` (name and rows, at least one each); `false_alarms` is the probability of an alert when nothing changed.

    Features without a value in the reference are left out, and those of more than 100 categories, whose encoding by frequency says nothing. No
    rows come back when fewer than two are left.
    """
    from scipy.special import ndtri

    known = _reconstructed(reference, schema)
    if len(known.names) < 2:
        return []
    calculator = import_nannyml().DataReconstructionDriftCalculator(column_names=feature_columns(known), chunker=index_chunker())
    with without_warnings():
        calculator.fit(feature_frame([reference], known))
        result = calculator.calculate(feature_frame([table for _, table in windows], known))
    held_out, *measured = result.data[RECONSTRUCTION_ERROR][["value", "sampling_error"]].to_numpy(dtype=float)
    quantile = -float(ndtri(false_alarms / 2))
    rows, cell = [], (ALL_FEATURES, RECONSTRUCTION_ERROR)
    for (window, table), (value, error) in zip(windows, measured, strict=True):
        # The standard error of a single row is not defined.
        chance = quantile * math.hypot(error, held_out[1]) if table.num_rows > 1 else math.inf
        effect = abs(value - held_out[0]) / held_out[0] if held_out[0] > 0 else None
        beyond = math.hypot(chance, usual.limit(cell, false_alarms) * held_out[0])
        rows.append(
            DriftRow(
                window=window,
                slice=None,
                feature=ALL_FEATURES,
                kind="all",
                method=RECONSTRUCTION_ERROR,
                value=float(value),
                threshold=float(held_out[0] + beyond),
                effect=None if effect is None else float(effect),
                effect_floor=EFFECT_FLOOR,
                rows=table.num_rows,
                alert=bool(abs(value - held_out[0]) > beyond and (effect is None or effect >= EFFECT_FLOOR)),
                usual=usual.median(cell),
                farther=usual.farther(cell, effect),
                windows=usual.windows(cell),
                importance=None,
            )
        )
    return rows


def _reconstructed(reference: pa.Table, schema: FeatureSchema) -> FeatureSchema:
    def usable(name: str, most: float) -> bool:
        column = reference.column(name)
        if name in schema.numeric and not np.isfinite(numeric_matrix(reference, [name])).any():
            return False
        return column.null_count < len(column) and len(column.unique()) <= most

    return FeatureSchema(
        numeric=tuple(name for name in schema.numeric if usable(name, math.inf)),
        categorical=tuple(name for name in schema.categorical if usable(name, MAXIMUM_CATEGORIES)),
    )
