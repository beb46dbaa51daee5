"""The columns of the raw table: names that the lake can have, types, and expressions where one format does not do."""

from collections.abc import Mapping
from typing import Any

from mlops_assets.features.generated.dbt_model import sql_word
from mlops_assets.lake.sql import literal
from mlops_assets.operations.new_solution.column_types import ColumnType, ColumnTypes
from mlops_assets.schema.column_names import LONGEST_NAME, RESERVED, check_column_name, fold
from mlops_assets.schema.configuration_errors import ConfigurationError

_HOLDERS = tuple(kind for kind in RESERVED if kind not in ("raw_rejects", "features"))
"""The kinds of tables that a column of the data may get to."""

_UNWRITABLE = str.maketrans({'"': "_", "\\": "_"})


def lake_names(names: Mapping[str, Any], table: str) -> dict[str, str]:
    """Name in the source -> name in the lake: the same, but where it is empty, the platform's, not to be written, or taken already."""
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for number, name in enumerate(names, start=1):
        plain = "".join(letter if letter.isprintable() else " " for letter in name).translate(_UNWRITABLE).strip()[:LONGEST_NAME]
        for candidate in (plain, f"{table}_{plain.lstrip('_')}"[:LONGEST_NAME], f"{table}_column_{number}"):
            if fold(candidate) not in taken and _is_allowed(candidate):
                chosen[name] = candidate
                taken.add(fold(candidate))
                break
    return chosen


def _is_allowed(name: str) -> bool:
    try:
        check_column_name(name, (), place="", reserved_for=_HOLDERS)
    except ConfigurationError:
        return False
    return True


def raw_columns(types: ColumnTypes, names: Mapping[str, str], *, time_zone: str | None) -> dict[str, dict[str, Any]]:
    """The columns of the raw table as YAML has them, in their order. Times without an offset are those of `time_zone`; None: UTC.

    A time that the reader cannot take as it is written is read as text, or as a time without a zone, and computed from that.
    """
    columns: dict[str, dict[str, Any]] = {}
    computed: dict[str, dict[str, Any]] = {}
    for source, name in names.items():
        kind = types.types[source]
        is_local = kind.stated == "timestamptz" and not kind.has_offset and time_zone not in (None, "UTC")
        if kind.written is None and not is_local:
            columns[name] = {"type": kind.stated, **({} if source == name else {"source": source})}
            continue
        read = _free_name(f"{name}_{'text' if kind.written else 'local'}", names)
        columns[read] = {"type": "varchar" if kind.written else "timestamp", "source": source}
        computed[name] = {"type": kind.stated, "expression": _moment(kind, sql_word(read), time_zone or "UTC")}
    return columns | computed


def _moment(kind: ColumnType, read: str, time_zone: str) -> str:
    value = f"strptime({read}, {literal(kind.written)})" if kind.written else read
    if kind.stated == "date":
        return f"CAST({value} AS DATE)"
    if kind.has_offset:
        return value
    return f"timezone({literal(time_zone)}, {value})"


def _free_name(name: str, names: Mapping[str, str]) -> str:
    while fold(name) in map(fold, names.values()):
        name += "_"
    return name
