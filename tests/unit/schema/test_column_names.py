"""Names of the platform's columns: what they are, what they are compared like, and that data is refused them."""

import duckdb
import pytest

from mlops_assets.schema.column_names import (
    INTERNAL_PREFIX,
    LONGEST_NAME,
    RESERVED,
    audit_condition,
    check_column_name,
    fold,
    internal,
    is_audit,
    repeated,
)
from mlops_assets.schema.configuration_errors import ConfigurationError

AUDIT = [
    "_loaded_at",
    "_Source",
    "_source_snapshot",
    "_VIEW_snapshots",
    "_orders_event_timestamp",
    "_É_Event_timestamp",
    internal("x"),
]
NO_AUDIT = ["_score", "_", "_reason", "_event_timestamp", "event_timestamp", "score", "loaded_at", "É_event_timestamp"]


@pytest.mark.parametrize(("column", "expected"), [*((name, True) for name in AUDIT), *((name, False) for name in NO_AUDIT)])
def test_audit_columns_are_ours_alone_in_python_and_sql(column: str, expected: bool) -> None:
    assert is_audit(column) is expected
    assert duckdb.sql(
        f'SELECT COLUMNS(lambda name: {audit_condition("name")} = {expected}) FROM (SELECT 1 AS "{column}")'
    ).columns


@pytest.mark.parametrize(("one", "other"), [("Split", "SPLIT"), ("É", "é"), ("K", "k"), ("a", "b")])
def test_names_are_equal_where_duckdb_takes_them_for_equal(one: str, other: str) -> None:
    same = duckdb.sql(f'SELECT * FROM (SELECT 1 AS "{one}", 2 AS "{other}")').columns != [one, other]
    assert (fold(one) == fold(other)) is same
    assert repeated([one, "between", other]) == ([one, other] if same else [])


@pytest.mark.parametrize("kind", RESERVED)
def test_every_reserved_name_is_refused_with_place_and_remedy(kind: str) -> None:
    for name in [*RESERVED[kind], f"{INTERNAL_PREFIX}row", f"{INTERNAL_PREFIX}Row".upper()]:
        with pytest.raises(ConfigurationError, match=r"the view orders: .*rename it there") as error:
            check_column_name(name.title(), ("features", 0), place="the view orders", reserved_for=[kind])
        assert error.value.path == ("features", 0)


@pytest.mark.parametrize("name", ["", " ", "*", "a\nb", "nul\0", "x" * (LONGEST_NAME + 1)])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        check_column_name(name, (), place="the view orders", reserved_for=[])


@pytest.mark.parametrize("name", ["_score", "sélect", "select", 'a "b"', "a.b", "100 %", "{x}", "rows", "x" * LONGEST_NAME])
def test_other_names_are_the_datas_own(name: str) -> None:
    check_column_name(name, (), place="the view orders", reserved_for=["raw", "training_dataset", "request", "features"])
