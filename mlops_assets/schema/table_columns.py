"""The columns of a table as they are declared, whoever declares them: YAML, a dbt contract, or the class of a report's rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """One column: its DuckDB type (None: any), its meaning, and what its values may be. A missing value is within every bound.

    With `finite`, no number may be beyond those that a model reads, which are float32.
    """

    type: str | None
    description: str = ""
    nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None
    accepted: tuple[str, ...] | None = None
    finite: bool = False


def accepted_value(text: str, kind: str) -> Any:
    """The value that `text` names in a column of the DuckDB type `kind`. Raises ValueError when it names none."""
    name = kind.lower()
    if name in ("boolean", "bool"):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() == "true"
    if name == "date":
        return date.fromisoformat(text)
    if name.startswith("timestamp"):
        return datetime.fromisoformat(text)
    if "int" in name:
        return int(text)
    return float(text) if name.startswith(("double", "float", "real", "decimal", "numeric")) else text


_TYPES = {str: "VARCHAR", float: "DOUBLE", int: "BIGINT", bool: "BOOLEAN"}


def column(
    description: str, *, minimum: float | None = None, maximum: float | None = None, accepted: tuple[str, ...] = ()
) -> Any:
    """A field of the class of a report's rows, with what its column holds. Its type, and whether it may be null, is that of the field."""
    return field(metadata={"description": description, "minimum": minimum, "maximum": maximum, "accepted": accepted or None})


def row_columns(row_type: type) -> dict[str, TableColumn]:
    """The columns of the rows of a dataclass whose fields are made by `column`, in their order."""
    hints = get_type_hints(row_type)
    return {each.name: TableColumn(**_type(hints[each.name]), **each.metadata) for each in fields(row_type)}


def _type(hint: Any) -> dict[str, Any]:
    alternatives = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
    # The values that a type lists are texts.
    [plain] = {str if get_origin(each) is Literal else each for each in alternatives} - {NoneType}
    return {"type": _TYPES[plain], "nullable": NoneType in alternatives}


def descriptions(columns: Mapping[str, TableColumn]) -> dict[str, str]:
    """Column -> what it holds."""
    return {name: column.description for name, column in columns.items()}


def arrow_schema(columns: Mapping[str, TableColumn]) -> "pa.Schema":
    """The Arrow schema of the columns of a report."""
    import pyarrow as pa

    types = {
        "VARCHAR": pa.string(),
        "DOUBLE": pa.float64(),
        "BIGINT": pa.int64(),
        "INTEGER": pa.int32(),
        "BOOLEAN": pa.bool_(),
        "DATE": pa.date32(),
    }
    return pa.schema([(name, types[column.type or "VARCHAR"]) for name, column in columns.items()])
