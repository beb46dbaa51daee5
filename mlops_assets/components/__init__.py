"""Dagster components, which turn YAML files into definitions. Imported by `definitions`, `local`, `operations` and `cli`."""

from mlops_assets.components.dbt_models import DbtModels
from mlops_assets.components.ml_solution import MLSolution
from mlops_assets.components.raw_tables import RawTables

__all__ = ["DbtModels", "MLSolution", "RawTables"]
