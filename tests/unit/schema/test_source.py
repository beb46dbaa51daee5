"""What the YAML file of a source may not say."""

import re
from typing import Any

import pytest
from file_rows import COLUMNS
from pydantic import ValidationError

from mlops_assets.schema.source import RawTable, Source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"nonsense": 1}}, "`nonsense` has no effect on csv files"),
        ({"options": {"new_line": "\\n"}}, "line ends are detected"),
        ({"options": {"header": False}}, "needs the option `names`"),
        ({"options": {"encoding": "klingon"}}, "no encoding of Python's codecs"),
        ({"options": {"encoding": "base64"}}, "no encoding of Python's codecs"),
        ({"options": {"delim": ""}}, "one to four characters"),
        ({"options": {"thousands": "."}}, "must be two signs"),
        ({"options": {"compression": "lzo"}}, "the compression 'lzo' is not supported"),
        ({"format": "parquet", "options": {"dateformat": "%d"}}, "has no effect on parquet files"),
        ({"columns": {"a": {"type": "integer", "source": "b", "expression": "1"}}}, "are of a column that is read"),
    ],
)
def test_what_would_have_no_effect_is_refused_at_load(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RawTable.model_validate({"description": "d", "format": "csv", "files": ["f.csv"], "columns": COLUMNS, **change})


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"type": "varchar", "minimum": 1}, "`minimum` and `maximum` are of numbers; a varchar column has none: use `accepted`"),
        ({"type": "integer", "accepted": ["1", "two"]}, "`accepted`: 'two' is no integer"),
        ({"type": "boolean", "accepted": ["yes"]}, "`accepted`: 'yes' is no boolean"),
    ],
)
def test_bounds_are_of_the_type_of_the_column(column: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        RawTable.model_validate({"description": "d", "format": "csv", "files": ["x.csv"], "columns": {"a": column}})


@pytest.mark.parametrize(
    ("cadence", "start", "message"),
    [
        ("monthly", "2024-01-10", "Set start to 2024-01-01 to load them, or to 2024-02-01"),
        ("weekly", "2024-01-10", "Set start to 2024-01-08 to load them, or to 2024-01-15"),
        ("yearly", "2024-01-10", "Set start to 2024-01-01 to load them, or to 2025-01-01"),
        ("monthly", "2024-01-01", None),
        ("weekly", "2024-01-08", None),
        ("daily", "2024-01-10", None),
    ],
)
def test_partitions_begin_at_the_start_of_their_period(cadence: str, start: str, message: str | None) -> None:
    columns = {"day": {"type": "date"}}
    table = {"description": "d", "format": "csv", "files": ["f.csv"], "columns": columns}
    table["partitions"] = {"column": "day", "start": start, "cadence": cadence}
    if message is None:
        RawTable.model_validate(table)
    else:
        with pytest.raises(ValidationError, match=message):
            RawTable.model_validate(table)


@pytest.mark.parametrize(
    ("file", "reader"),
    [("a.csv", "csv"), ("A.PARQUET", "parquet"), ("b.json.gz", "json"), ("package:p/data/flights.csv.zip", "csv")],
)
def test_the_format_is_what_the_name_of_the_file_ends_with(file: str, reader: str) -> None:
    table = {"description": "d", "files": [file], "columns": {"a": {"type": "integer"}}}
    assert RawTable.model_validate(table).format == reader


def test_a_file_of_another_name_needs_a_format() -> None:
    with pytest.raises(ValidationError, match="`files` need a `format`: csv"):
        RawTable.model_validate({"description": "d", "files": ["a.txt"], "columns": {"a": {"type": "integer"}}})


def test_a_feature_view_of_several_tables_says_which() -> None:
    table = {"description": "d", "files": ["a.csv"], "columns": {"a": {"type": "integer"}}}
    view = {"description": "d", "entity": ["a"], "time": "t", "features": {"n": {"count": "*", "over": "1d"}}}
    source = {"owners": ["team:a"], "tables": {"one": table}, "feature_views": {"v": view}}
    assert Source.model_validate(source).feature_views["v"].table == "one"
    with pytest.raises(ValidationError, match="say which, `table: one or two`"):
        Source.model_validate({**source, "tables": {"one": table, "two": table}})
    with pytest.raises(ValidationError) as raised:
        Source.model_validate({**source, "tables": {"one": {**table, "format": "nothing"}}})
    assert "say which" not in str(raised.value)
