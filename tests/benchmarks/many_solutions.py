"""A project of many small solutions, each with a source, a feature view and a spine of its own. No benchmarks here.

`python tests/benchmarks/many_solutions.py FOLDER COUNT` writes it and parses its dbt project.
"""

import shutil
import sys
from pathlib import Path

from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.local.prepare import parse_dbt_project

_PYPROJECT = """
[project]
name = "many"

[tool.dg.project]
root_module = "many"

[tool.mlops]
"""

_DEFINITIONS = """
import dagster as dg

from mlops_assets.components.project import project_definitions

defs = dg.definitions(project_definitions)
"""

_SOURCE = """
type: mlops_assets.components.raw_tables.RawTables
attributes:
  owners: [team:logistics]
  tables:
    NAME:
      description: Parcels sent from the depots, one row a parcel.
      files: [parcels.csv]
      format: csv
      key: [parcel_id]
      minimum_rows: 1
      partitions: {column: sent_date, start: 2024-01-01, end: 2024-05-01, cadence: daily}
      columns:
        parcel_id: {type: varchar, required: true, description: Parcel}
        sent_at: {type: timestamptz, required: true, description: When it left the depot}
        depot: {type: varchar, required: true, description: Depot}
        weight_kg: {type: double, minimum: 0, maximum: 50, description: Weight in kilograms}
        delivered_at: {type: timestamptz, description: When it was delivered}
        sent_date: {type: date, required: true, expression: "CAST(sent_at AS DATE)", description: Date of sent_at}
"""

_DBT_SOURCES = """
sources:
  - name: NAME
    database: lake
    schema: raw
    tables:
      - name: NAME
        description: Parcels sent from the depots.
        config: {meta: {partition_column: sent_date}}
"""

_SPINE = """
select parcel_id, sent_date, sent_at as predicted_at, depot, weight_kg,
    (delivered_at - sent_at > interval 24 hour)::integer as is_late, delivered_at, _loaded_at
from {{ source('NAME', 'NAME') }}
where {{ in_window('sent_date') }}
"""

_VIEW = """
select depot, sent_at as event_timestamp, 1::integer as NAME_parcels, sent_date as event_date, _loaded_at
from {{ source('NAME', 'NAME') }}
where {{ in_window('sent_date') }}
"""

_MODELS = """
models:
  - name: NAME_delay_spine
    description: Every parcel, when it leaves the depot.
    config:
      schema: NAME_delay
      alias: spine
      tags: [NAME]
      meta: {owner: "team:logistics", partition_column: sent_date}
    columns:
      - {name: parcel_id, data_type: varchar, description: Parcel, constraints: [{type: not_null}], data_tests: [unique]}
      - {name: sent_date, data_type: date, description: Date of sent_at, constraints: [{type: not_null}]}
      - {name: predicted_at, data_type: timestamp with time zone, description: When it leaves, constraints: [{type: not_null}]}
      - {name: depot, data_type: varchar, description: Depot, constraints: [{type: not_null}]}
      - {name: weight_kg, data_type: double, description: Weight in kilograms}
      - {name: is_late, data_type: integer, description: Label}
      - {name: delivered_at, data_type: timestamp with time zone, description: When the label became known}
      - {name: _loaded_at, data_type: timestamp with time zone, description: When it was loaded, constraints: [{type: not_null}]}
  - name: NAME_history
    description: Parcels of a depot.
    config:
      schema: features
      tags: [NAME]
      meta:
        owner: team:logistics
        partition_column: event_date
        feature_view: {entity: [depot], event_timestamp: event_timestamp, freshness_days: 7}
    data_tests:
      - unique_combination: {arguments: {columns: [depot, event_timestamp]}}
    columns:
      - {name: depot, data_type: varchar, description: Depot, constraints: [{type: not_null}]}
      - {name: event_timestamp, data_type: timestamp with time zone, description: Known from, constraints: [{type: not_null}]}
      - {name: NAME_parcels, data_type: integer, description: Parcels, constraints: [{type: not_null}]}
      - {name: event_date, data_type: date, description: Partition, constraints: [{type: not_null}]}
      - {name: _loaded_at, data_type: timestamp with time zone, description: When it was loaded, constraints: [{type: not_null}]}
"""

_FEATURES = """
type: mlops_assets.components.dbt_models.DbtModels
attributes:
  project: dbt_project
  select: tag:NAME
  partitions: {start: 2024-01-01, end: 2024-05-01, cadence: daily}
"""

_SOLUTION = """
type: mlops_assets.components.ml_solution.MLSolution
attributes:
  name: NAME_delay
  description: Probability that a parcel takes more than 24 hours, when it leaves the depot.
  owners: [team:logistics]
  problem: binary_classification
  partitions: {column: sent_date, start: 2024-01-01, end: 2024-05-01, cadence: daily}
  spine: {model: NAME_delay_spine, key: parcel_id, prediction_time: predicted_at, label: is_late, label_time: delivered_at}
  features:
    - request: [depot, weight_kg]
    - {view: NAME_history, version: 1}
  training:
    window: 90d
    holdout: 14d
    metric: roc_auc
    estimator: {type: sklearn.ensemble.HistGradientBoostingClassifier, parameters: {max_iter: 50}}
  gates: {floor: {roc_auc: 0.6}, slices: [depot]}
  monitoring: {window: weekly}
"""

_ROW = "1,2024-01-01 08:00:00+00,north,1.5,2024-01-02 09:00:00+00"


def write_project(root: Path, count: int) -> None:
    """Write a project of `count` solutions into the folder `root`, which must not exist, and parse its dbt project."""
    dbt, definitions = root / "dbt_project", root / "many" / "defs"
    for folder in (dbt, definitions):
        folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text(_PYPROJECT)
    (root / "many" / "__init__.py").touch()
    (definitions / "__init__.py").touch()
    (root / "many" / "definitions.py").write_text(_DEFINITIONS)
    example = current_project().dbt_project
    shutil.copy(example / "dbt_project.yml", dbt)
    for number in range(count):
        name = f"parcels_{number}"
        files = {
            definitions / name / "defs.yaml": _SOURCE,
            definitions / f"{name}_features" / "defs.yaml": _FEATURES,
            definitions / f"{name}_delay" / "defs.yaml": _SOLUTION,
            dbt / "models" / "solutions" / name / "__sources.yml": _DBT_SOURCES,
            dbt / "models" / "solutions" / name / f"{name}_delay_spine.sql": _SPINE,
            dbt / "models" / "solutions" / name / f"{name}_history.sql": _VIEW,
            dbt / "models" / "solutions" / name / f"{name}.yml": _MODELS,
        }
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("NAME", name))
        (definitions / name / "parcels.csv").write_text(f"parcel_id,sent_at,depot,weight_kg,delivered_at\n{_ROW}\n")
    parse_dbt_project(Settings(home=root / ".mlops"), dbt)


if __name__ == "__main__":
    write_project(Path(sys.argv[1]), int(sys.argv[2]))
