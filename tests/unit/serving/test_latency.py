"""The latency of a bundle, measured on a real one."""

from pathlib import Path

import pyarrow as pa
import pytest
from bundles import fit_flights, load

from mlops_assets.serving.latency import measure_latency


@pytest.mark.parametrize("rows", [1, 30])
def test_a_table_of_few_rows_is_enough(rows: int, tmp_path: Path) -> None:
    fitted = fit_flights("regression")
    bundle = load(fitted.write(tmp_path / "1"))
    schema = bundle.contract.feature_schema
    numeric = {name: pa.array([0.5, None, 3.0]) for name in schema.numeric}
    table = pa.table({**numeric, **{name: pa.array(["AA", None, "new"]) for name in schema.categorical}})
    latency = measure_latency(bundle, table, rows=rows)
    assert latency.rows == rows
    assert 0 < latency.p50 <= latency.p99
    if rows == 1:
        assert latency.p50 == latency.p99
