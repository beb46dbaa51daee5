"""The names of dagster-dbt that the platform uses, imported without dbt, which runs in processes of its own.

dagster-dbt imports dbt-core where it is installed, for selections and adapters that nothing here uses. That took longer than all
definitions, in every process that loads them: the code location and the worker of each run. Without dbt-core it has definitions of its
own for the few types that it needs, those for dbt Fusion.
"""

import sys

_MARK = "dbt.version"
_IMPORTED = sys.modules.get(_MARK)
# With None an import raises ImportError, which dagster-dbt takes for "not installed".
sys.modules[_MARK] = _IMPORTED  # type: ignore[assignment]
try:
    from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliInvocation, DbtProject
    from dagster_dbt.asset_utils import DAGSTER_DBT_UNIQUE_ID_METADATA_KEY, get_updated_cli_invocation_params_for_context
    from dagster_dbt.dbt_manifest import validate_manifest
    from dagster_dbt.errors import DagsterDbtCliRuntimeError
finally:
    if _IMPORTED is None:
        del sys.modules[_MARK]

__all__ = [
    "DAGSTER_DBT_UNIQUE_ID_METADATA_KEY",
    "DagsterDbtCliRuntimeError",
    "DagsterDbtTranslator",
    "DagsterDbtTranslatorSettings",
    "DbtCliInvocation",
    "DbtProject",
    "get_updated_cli_invocation_params_for_context",
    "validate_manifest",
]
