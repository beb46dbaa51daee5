"""Columns followed through small models."""

from typing import Any

import pytest

from mlops_assets.feature_store.column_lineage import Lineage, read_lineage, value_sources


def manifest(**models: tuple[list[str], list[str]]) -> dict[str, Any]:
    """Models in the schema s by name: parents and columns. The source is raw.t with the columns a, b, C, day."""
    source = {"resource_type": "source", "schema": "raw", "name": "t", "config": {"meta": {"partition_column": "day"}}}
    nodes = {
        f"model.p.{name}": {
            "resource_type": "model",
            "unique_id": f"model.p.{name}",
            "schema": "s",
            "alias": name,
            "name": name,
            "config": {},
            "columns": {column: {} for column in columns},
            "depends_on": {"nodes": parents},
        }
        for name, (parents, columns) in models.items()
    }
    return {"nodes": nodes, "sources": {"source.p.t": {**source, "columns": {column: {} for column in ("a", "b", "C", "day")}}}}


def lineage(sql: str, columns: list[str]) -> Lineage:
    return read_lineage(manifest(m=(["source.p.t"], columns)), {"model.p.m": sql})


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select a as x, b as y from lake.raw.t", {"a": {"x"}, "b": {"y"}, "c": set(), "day": {"x", "y"}}),
        ("select c as x, b as y from lake.raw.t", {"a": set(), "b": {"y"}, "c": {"x"}}),
        ("select a as x, b as y from lake.raw.t where c > 0", {"a": {"x"}, "b": {"y"}, "c": {"x", "y"}}),
        ("with q as (select *, a + 1 as x from lake.raw.t) select x, b as y from q", {"a": {"x"}, "b": {"y"}}),
        ("select a as x, x + b as y from lake.raw.t", {"a": {"x", "y"}, "b": {"y"}}),
        ("select a as x, max(b) as y from lake.raw.t group by all", {"a": {"x", "y"}, "b": {"y"}}),
        ("select a as x, sum(b) over w as y from lake.raw.t window w as (order by c)", {"b": {"y"}, "c": {"x", "y"}}),
        ("select a as x, 1 as y from lake.raw.t union all select b, c from lake.raw.t", {"a": {"x"}, "b": {"x"}, "c": {"y"}}),
        ("select s.f as x, b as y from (select {'f': a} as s, b from lake.raw.t)", {"a": {"x"}, "b": {"y"}}),
        ("select a as x, (select max(b) from lake.raw.t) as y from lake.raw.t", {"a": {"x"}, "b": {"y"}, "c": set()}),
        ("select l.a as x, r.b as y from lake.raw.t l join lake.raw.t r on l.c = r.c", {"a": {"x"}, "b": {"y"}, "c": {"x", "y"}}),
    ],
)
def test_columns_within_a_model(sql: str, expected: dict[str, set[str]]) -> None:
    found = lineage(sql, ["x", "y"])
    for column, reached in expected.items():
        got = found.affected("raw.t", column).get("s.m", set())
        assert got == reached, column


def test_columns_across_models() -> None:
    models = manifest(m=(["source.p.t"], ["X"]), n=(["model.p.m"], ["y", "z"]))
    found = read_lineage(models, {"model.p.m": "select a as X from raw.t", "model.p.n": "select x as y, 1 as z from s.m"})
    assert found.affected("raw.t", "A") == {"s.m": {"X"}, "s.n": {"y"}}
    assert found.affected("raw.t", "b") == {}
    assert found.affected("s.m", "x") == {"s.n": {"y"}}


@pytest.mark.parametrize(
    "sql",
    [
        "select from where (",
        "select * replace (a + 1 as x) from (select a as x, b as y from lake.raw.t)",
        "select columns('a|b') from lake.raw.t",
        "from (pivot lake.raw.t on a using sum(b))",
    ],
)
def test_sql_that_cannot_be_followed_counts_as_all_on_all(sql: str) -> None:
    found = lineage(sql, ["x", "y"])
    assert found.unreadable == ("s.m",)
    assert found.affected("raw.t", "a") == {"s.m": {"x", "y"}}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select a as x, b + c as y from lake.raw.t where day > '2024-01-01'", {"x": {"a"}, "y": {"b", "c"}}),
        ("select a as x, count(*) as y from lake.raw.t group by all", {"x": {"a"}, "y": {"a"}}),
        ("select columns('a|b') from lake.raw.t", {"x": {"a", "b", "c", "day"}, "y": {"a", "b", "c", "day"}}),
    ],
)
def test_what_a_value_is_computed_from_leaves_out_what_chooses_rows(sql: str, expected: dict[str, set[str]]) -> None:
    models = manifest(m=(["source.p.t"], ["x", "y"]))
    found = value_sources(models, models["nodes"]["model.p.m"], sql)
    assert {column: {name for _, name in sources} for column, sources in found.items()} == expected
