"""The check of derived features when the YAML is loaded."""

from collections.abc import Mapping

from mlops_assets.features.sql_expressions import Path, expression_type
from mlops_assets.schema.configuration_errors import ConfigurationError

_FEATURE_TYPES = (
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "FLOAT",
    "DOUBLE",
    "VARCHAR",
)


def check_derived(expression: str, *, columns: Mapping[str, str], path: Path) -> None:
    """Raise ConfigurationError at `path` unless `expression` makes a feature of one row's request `columns` (name -> SQL type).

    It may read those columns only, and call deterministic scalar functions only, so that it means the same in the lake and in a
    server; its result is a number, a string or a boolean.
    """
    if untyped := [column for column, data_type in columns.items() if not data_type]:
        raise ConfigurationError(path, f"declare the data_type of {', '.join(untyped)} in the dbt model of the spine")
    data_type = expression_type(expression, columns=columns, of="`request`", path=path)
    if data_type not in _FEATURE_TYPES and not data_type.startswith("DECIMAL"):
        raise ConfigurationError(path, f"{expression!r} is {data_type}, which no model reads: cast it to a number or a string")
