"""The smallest solution of a project: a source of parcels and a solution whose spine is derived from it. Files, no tests."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.core.project import Project, current_project, project_of_process

SOURCE = """type: mlops_assets.components.raw_tables.RawTables
attributes:
  owners: [team:logistics]
  tables:
    parcels:
      description: Parcels sent from the depots, one row a parcel.
      files: [parcels.csv]
      format: csv
      key: [parcel_id]
      partitions: {column: sent_date, start: 2024-01-01, end: 2024-05-01, cadence: daily}
      columns:
        parcel_id: {type: varchar, required: true, description: Parcel.}
        sent_at: {type: timestamptz, required: true, description: "When it left the depot, UTC."}
        depot: {type: varchar, required: true, accepted: [north, south, east], description: Depot.}
        weight_kg: {type: double, minimum: 0, maximum: 50, description: Weight in kilograms.}
        distance_km: {type: integer, required: true, minimum: 1, description: Distance in kilometres.}
        delivered_at: {type: timestamptz, description: "When it was delivered, UTC; null until then."}
        sent_date: {type: date, required: true, expression: "CAST(sent_at AS DATE)", description: Date of sent_at in UTC.}
"""

VIEWS = """  feature_views:
    depot_history:
      description: Deliveries of a depot.
      table: parcels
      entity: [depot]
      time: delivered_at
      late: 2d
      features:
        depot_deliveries_7d: {count: "*", over: 7d}
        depot_late_rate_7d: {rate: delivered_at - sent_at > INTERVAL 24 HOUR, over: 7d}
    depot_parcels:
      description: Parcels of a depot, known when they are delivered.
      table: parcels
      entity: [depot]
      time: sent_at
      known_at: delivered_at
      every: hour
      features:
        depot_heavy_1d: {count: weight_kg > 20, over: 1d}
        depot_weight_2d: {sum: weight_kg, over: 2d}
        depot_distance_2d: {sum: distance_km, over: 2d}
        depot_mean_weight_3d: {mean: weight_kg, over: 3d}
        depot_mean_distance_3d: {mean: distance_km, over: 3d}
        depot_last_weight_3d: {last: weight_kg, over: 3d}
        depot_hours_3d: {time_since: hours, over: 3d}
"""

SOLUTION = """type: mlops_assets.components.ml_solution.MLSolution
attributes:
  name: parcel_delay
  description: Probability that a parcel takes more than 24 hours, when it leaves the depot.
  owners: [team:logistics]
  problem: binary_classification
  partitions: {column: sent_date, start: 2024-01-01, end: 2024-05-01}
  spine:
    table: parcels
    key: parcel_id
    prediction_time: sent_at
    label: is_late
    label_time: delivered_at
    expressions: {is_late: delivered_at - sent_at > INTERVAL 24 HOUR}
  features:
    - request: [depot, weight_kg, distance_km]
  training:
    window: 90d
    holdout: 14d
    metric: roc_auc
    estimator: {type: sklearn.ensemble.HistGradientBoostingClassifier, parameters: {max_iter: 50}}
  gates: {floor: {roc_auc: 0.6}}
"""

_SETTINGS = """[project]
name = "{module}"
[tool.mlops]
[tool.dg.project]
root_module = "{module}"
"""

SPINE_COLUMNS = {
    "parcel_id": "varchar",
    "sent_date": "date",
    "sent_at": "timestamp with time zone",
    "depot": "varchar",
    "weight_kg": "double",
    "distance_km": "integer",
    "is_late": "integer",
    "delivered_at": "timestamp with time zone",
    "_loaded_at": "timestamp with time zone",
}
"""Of a spine with the label `is_late`: the columns and their types."""


def parcels_project(root: Path, module: str = "shop") -> Project:
    """A project in the empty folder `root` with the source and the solution, and a dbt project without models of its own.

    A test that imports its `module` gives it a name that no other test of the process imports.
    """
    (root / "pyproject.toml").write_text(_SETTINGS.format(module=module))
    bundled = current_project().dbt_project
    shutil.copytree(
        bundled,
        root / "dbt_project",
        ignore=shutil.ignore_patterns("target", "logs", "models", "seeds", "macros", "generated", "dbt_packages"),
    )
    for folder in (module, f"{module}/defs"):
        (root / folder).mkdir()
        (root / folder / "__init__.py").touch()
    project = Project.read(root)
    declare(project, "parcels", SOURCE)
    declare(project, "parcel_delay", SOLUTION)
    return project


@contextlib.contextmanager
def current_project_is(root: Path) -> Iterator[None]:
    """Inside the block the project at `root` is that of the process, and its module is importable."""
    former = current_project()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MLOPS_PROJECT", str(root))
        monkeypatch.syspath_prepend(root)
        project_of_process.cache_clear()
        try:
            yield
        finally:
            # Found again here: the next test may work in another folder.
            monkeypatch.setenv("MLOPS_PROJECT", str(former.root))
            project_of_process.cache_clear()
            project_of_process()


def declare(project: Project, folder: str, text: str) -> None:
    """Write the `defs.yaml` of a folder of `project`."""
    path = project.definitions_directory / folder
    path.mkdir(exist_ok=True)
    (path / "__init__.py").touch()
    (path / "defs.yaml").write_text(text)
