import warnings

import numpy as np
import pyarrow as pa
import pytest
from census import SCHEMA, census

from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.reconstruction import reconstruction_rows
from mlops_assets.ml.usual_drift import UsualDrift


def test_the_error_is_that_of_nannyml_and_stationary_windows_do_not_alert() -> None:
    import nannyml

    table = census("reference", 8000)
    reference, windows = table.slice(0, 4000), [table.slice(4000 + 1000 * number, 1000) for number in range(4)]
    rows = reconstruction_rows(
        reference, [(str(number), window) for number, window in enumerate(windows)], SCHEMA, false_alarms=0.01
    )
    calculator = nannyml.DataReconstructionDriftCalculator(column_names=list(SCHEMA.names), chunk_size=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = (
            calculator.fit(to_frame(reference, SCHEMA)).calculate(to_frame(table.slice(4000), SCHEMA)).filter(period="analysis")
        )
    assert [row.value for row in rows] == pytest.approx(result.data["reconstruction_error"]["value"].tolist(), rel=1e-9)
    assert not any(row.alert for row in rows)


def test_features_that_part_from_each_other_alert() -> None:
    random = np.random.default_rng(0)

    def sample(together: bool) -> pa.Table:
        first = random.normal(size=2000)
        columns = {f"x{number}": first + 0.1 * random.normal(size=2000) for number in range(4)}
        if not together:
            columns["x0"] = random.permutation(columns["x0"])
        return pa.table(
            {**columns, "empty": pa.nulls(2000, pa.float64()), "infinite": np.append(np.inf, random.normal(size=1999))}
        )

    schema = FeatureSchema(numeric=("x0", "x1", "x2", "x3", "empty", "infinite"), categorical=())
    reference, windows = sample(True), [("usual", sample(True)), ("parted", sample(False))]
    usual, parted = reconstruction_rows(reference, windows, schema, false_alarms=0.01)
    assert (usual.alert, parted.alert) == (False, True)
    assert parted.value > parted.threshold > usual.value
    assert (parted.feature, parted.kind) == ("*", "all")
    # Where the windows of the training window differ by as much, that is usual.
    for effect, alert in ((0.01, True), (5.0, False)):
        known = UsualDrift({("*", "reconstruction_error"): np.full(8, effect)})
        _, row = reconstruction_rows(reference, windows, schema, false_alarms=0.01, usual=known)
        assert (row.alert, row.usual, row.windows) == (alert, effect, 8)
        assert (row.value, row.farther) == (parted.value, 8 if effect > 1 else 0)


def test_one_feature_cannot_be_taken_together() -> None:
    schema = FeatureSchema(numeric=("x",), categorical=())
    table = pa.table({"x": np.arange(100.0)})
    assert reconstruction_rows(table, [("w", table)], schema, false_alarms=0.01) == []
