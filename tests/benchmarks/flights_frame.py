"""The flights of 2013 with the features of the bundled solutions, built once with dbt and kept as a file. No benchmarks here."""

import tempfile
from datetime import date
from pathlib import Path

import dbt_lake
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mlops_assets import defs
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.operations.replay_plan import Period
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.inputs import SolutionInputs

YEAR = Period(date(2013, 1, 1), date(2013, 12, 31))


def bundled_inputs(folder: str) -> SolutionInputs:
    """Return the inputs of the bundled solution in `defs/<folder>`."""
    attributes = yaml.safe_load((Path(defs.__path__[0]) / folder / "defs.yaml").read_text())["attributes"]
    return resolve_inputs(Solution.model_validate(attributes), FeatureRegistry.from_manifest(current_project().dbt_manifest))


def flights_rows(solution: str, cache: Path) -> pa.Table:
    """Return all labelled rows of `flight_delay` or `arrival_delay` in order of time; the lake is built when `cache` does not hold them."""
    path = cache / f"{solution}.parquet"
    if not path.exists():
        _build(cache)
    return pq.read_table(path)


def _build(cache: Path) -> None:
    from mlops_assets.operations.policy_comparison import labelled_rows

    cache.mkdir(parents=True, exist_ok=True)
    # Not in the cache: its path may be longer than that of a Unix socket may be.
    with tempfile.TemporaryDirectory(prefix="pg.", dir="/tmp") as folder:
        home = Path(folder)
        with dbt_lake.raw_lake(home, first=YEAR.first, last=YEAR.last) as lake:
            window = ["--event-time-start", "2013-01-01", "--event-time-end", "2014-01-01"]
            dbt_lake.dbt_runner(lake, home / "target")(
                "build", "--select", "tag:nycflights13", "--exclude-resource-type", "unit_test", *window
            )
            with lake.connect(read_only=False) as connection:
                for solution in ("flight_delay", "arrival_delay"):
                    rows = labelled_rows(connection, bundled_inputs(solution), Period(date(2013, 1, 2), YEAR.last))
                    pq.write_table(rows, cache / f"{solution}.parquet")
