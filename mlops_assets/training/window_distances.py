"""The distances of the windows inside a version's period from the whole of it, which tell what is usual: `ml/usual_drift.py`.

Each window is a sample of its rows. A sample of few rows is farther from the whole than all rows of the window would be, by an expected square
that is known (`drift.effect_beyond_chance`) and taken off. Slices are not measured: they are compared with what is usual of all rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from mlops_assets.ml.drift import Distance, effect_beyond_chance
from mlops_assets.ml.reference import WHOLE, Reference
from mlops_assets.training.drift_distances import measure_distances
from mlops_assets.training.reference_period import REFERENCE_WINDOW, split_windows

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.matrix import FeatureSchema

_MEASURED_ROWS = 25_000
"""Of all windows together."""


def measure_windows(
    connection: duckdb.DuckDBPyConnection,
    period: "pa.Table",
    whole: Reference,
    holdout: "pa.Table",
    features: "FeatureSchema",
    *,
    held_out: float,
) -> "pa.Table":
    """The effects (`DISTANCE_SCHEMA`) of the windows of `period`: from its summary `whole`, and by the reconstruction of `holdout`.

    The hold-out is as long as `held_out` windows.
    """
    import pyarrow as pa

    from mlops_assets.ml.reconstruction import reconstruction_rows
    from mlops_assets.ml.usual_drift import DISTANCE_SCHEMA

    described = {column["feature"]: column for column in whole.columns.to_pylist() if column["slice"] == WHOLE}
    windows = split_windows(period)
    shares = {window: rows.num_rows / period.num_rows for window, rows in windows.items()}
    samples = {window: rows.slice(0, max(2, _MEASURED_ROWS // len(windows))) for window, rows in windows.items()}
    connection.register("period_sample", pa.concat_tables(samples.values()).select([REFERENCE_WINDOW, *described]))
    effects = [
        {"window": distance.window, "feature": distance.feature, "method": distance.method, "effect": effect}
        for distance in (
            *measure_distances(connection, rows="period_sample", window=REFERENCE_WINDOW, slices=(), reference=_binned(whole)),
            *wasserstein_distances(samples, described, whole),
        )
        if (effect := _usual_effect(distance, described[distance.feature], shares[distance.window], held_out)) is not None
    ]
    # Their sampling errors, 1 % or so, are left in: the effect that matters is 5 %.
    effects += [
        {"window": row.window, "feature": row.feature, "method": row.method, "effect": row.effect}
        for row in reconstruction_rows(holdout, list(samples.items()), features, false_alarms=0.5)
        if row.effect is not None
    ]
    return pa.Table.from_pylist(effects, schema=DISTANCE_SCHEMA)


def _usual_effect(distance: Distance, column: Mapping[str, Any], share: float, held_out: float) -> float | None:
    """The effect of all rows of a window that has `share` of the rows of the period, as if it were not a part of it."""
    effect = effect_beyond_chance(distance, column, 1 / distance.rows - 1 / column["rows"])
    if effect is None:
        return None
    # A part of the whole is nearer to it than the next window is.
    effect /= max(0.5, 1 - share)
    # Predictions are compared with those of the hold-out, which is a few windows itself.
    return float(effect * (1 + 1 / max(1.0, held_out)) ** 0.5 if column["kind"] == "prediction" else effect)


def _binned(whole: Reference) -> Reference:
    """The reference of the distances over bins: without what the Wasserstein distance needs."""
    import pyarrow as pa

    position = whole.columns.schema.get_field_index("wasserstein_bins")
    columns = whole.columns.set_column(position, "wasserstein_bins", pa.nulls(whole.columns.num_rows, pa.int64()))
    return replace(whole, columns=columns)


def wasserstein_distances(
    samples: "Mapping[str, pa.Table]", described: Mapping[str, Mapping[str, Any]], whole: Reference
) -> Iterator[Distance]:
    """The Wasserstein distances of the windows `samples` from the reference `whole`, whose columns are `described` by feature.

    By SciPy: in SQL every window would meet all the values of the reference anew.
    """
    import pyarrow.compute as pc
    from scipy.stats import wasserstein_distance

    masses = whole.masses
    masses = masses.filter(pc.and_(pc.equal(masses.column("binning"), "wasserstein"), pc.equal(masses.column("slice"), WHOLE)))
    for feature, column in described.items():
        own = masses.filter(pc.equal(masses.column("feature"), feature))
        if not own.num_rows:
            continue
        positions, weights = (own.column(name).to_numpy() for name in ("position", "rows"))
        if bins := column["wasserstein_bins"]:
            positions = column["low"] + (positions + 0.5) * (column["high"] - column["low"]) / bins
        for window, rows in samples.items():
            numbers = rows.column(feature).cast("float64", safe=False).to_numpy()
            values = numbers[np.isfinite(numbers)]
            if len(values):
                distance = float(wasserstein_distance(values, positions, v_weights=weights))
                yield Distance(window, WHOLE, feature, "wasserstein", distance, len(values), 0)
