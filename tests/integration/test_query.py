"""`mlops sql` reads the lake and does nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.operations.query import run_query


@pytest.fixture(scope="module")
def settings(
    create_database: Callable[[str], str], postgres_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    create_database("lake")
    settings = Settings(
        home=tmp_path_factory.mktemp("home"), postgres_url=f"postgresql://postgres@/postgres?host={postgres_directory}"
    )
    with Lake.from_settings(settings).connect(read_only=False) as connection:
        connection.execute("CREATE TABLE lake.main.numbers AS SELECT * FROM range(1000) AS t(number)")
    (settings.home / "secret").write_text("a secret")
    return settings


@pytest.mark.parametrize(
    "query",
    [
        "SELECT sum(number) FROM numbers",
        "FROM lake.snapshots()",
        "DESCRIBE numbers",
        "SUMMARIZE numbers",
        "EXPLAIN SELECT 1",
        "SHOW ALL TABLES",
        "WITH t AS (SELECT 1) FROM t",
    ],
)
def test_queries_are_answered(settings: Settings, query: str) -> None:
    columns, rows = run_query(settings, query)
    assert columns
    assert rows


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("COPY (SELECT 1) TO '{lake}/x.csv'", "read-only"),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", "read-only"),
        ("ATTACH '{home}/x.db' AS x; CREATE TABLE x.t AS SELECT 1", "read-only"),
        ("ATTACH '{home}/x.db' AS x", "read-only"),
        ("SELECT 1; DROP TABLE numbers", "read-only"),
        ("DELETE FROM numbers", "read-only"),
        ("CREATE TABLE memory.main.t AS SELECT 1", "read-only"),
        ("SET enable_external_access = true", "read-only"),
        ("INSTALL httpfs", "read-only"),
        ("", "read-only"),
        ("SELECT * FROM read_text('{home}/secret')", "Permission"),
        ("SELECT * FROM '{home}/secret.csv'", "Permission"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission"),
    ],
)
def test_nothing_else_is_done(settings: Settings, query: str, reason: str) -> None:
    with pytest.raises(StackError, match=reason) as raised:
        run_query(settings, query.format(home=settings.home, lake=settings.lake_directory))
    assert "a secret" not in str(raised.value)
    assert {path.name for path in settings.home.iterdir()} <= {"lake", "secret", "duckdb_spill"}


def test_the_table_is_as_it_was(settings: Settings) -> None:
    assert run_query(settings, "SELECT count(*) AS rows FROM numbers") == (["rows"], [(1000,)])
