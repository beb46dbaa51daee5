"""Columns as they are declared: those of a class of rows, and the values that a text names."""

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

import pyarrow as pa
import pytest

from mlops_assets.schema.table_columns import TableColumn, accepted_value, arrow_schema, column, descriptions, row_columns


@dataclass(frozen=True)
class Row:
    name: Literal["a", "b"] | str = column("Which.", accepted=("a", "b"))
    value: float | None = column("How much.", minimum=0)
    rows: int = column("How many.")
    alert: bool = column("Whether.")


def test_the_class_of_the_rows_declares_the_columns() -> None:
    columns = row_columns(Row)
    assert columns == {
        "name": TableColumn(type="VARCHAR", description="Which.", nullable=False, accepted=("a", "b")),
        "value": TableColumn(type="DOUBLE", description="How much.", minimum=0),
        "rows": TableColumn(type="BIGINT", description="How many.", nullable=False),
        "alert": TableColumn(type="BOOLEAN", description="Whether.", nullable=False),
    }
    assert descriptions(columns)["rows"] == "How many."
    table = pa.Table.from_pylist([asdict(Row("a", None, 3, True))], schema=arrow_schema(columns))
    assert table.schema.types == [pa.string(), pa.float64(), pa.int64(), pa.bool_()]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("7", "integer", 7),
        ("7", "BIGINT", 7),
        ("0.5", "double", 0.5),
        ("true", "boolean", True),
        ("2020-01-02", "date", date(2020, 1, 2)),
        ("7", "varchar", "7"),
    ],
)
def test_an_accepted_value_has_the_type_of_its_column(text: str, kind: str, value: Any) -> None:
    assert accepted_value(text, kind) == value


@pytest.mark.parametrize(("text", "kind"), [("x", "integer"), ("maybe", "boolean"), ("tomorrow", "date"), ("x", "double")])
def test_a_text_that_names_no_such_value_is_refused(text: str, kind: str) -> None:
    with pytest.raises(ValueError, match=text):
        accepted_value(text, kind)
