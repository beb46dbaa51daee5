"""SQL and contracts of dbt models on empty tables, whose columns are those of the YAML of the raw tables."""

from pathlib import Path
from typing import Any

from mlops_assets.feature_store.empty_models import find_model_problems
from mlops_assets.schema.source import RawTable

RAW = RawTable.model_validate(
    {
        "description": "Orders.",
        "files": ["orders.csv"],
        "format": "csv",
        "columns": {"id": {"type": "bigint"}, "price": {"type": "double"}},
    }
)
STAGING = "select\n    id,\n    price * 2 as double_price,\n    _loaded_at\nfrom lake.raw.orders"


def node(name: str, parents: list[str], columns: dict[str, str], *, enforced: bool = True) -> dict[str, Any]:
    return {
        "resource_type": "model",
        "unique_id": name,
        "name": name,
        "schema": "staging",
        "alias": name,
        "columns": {column: {"data_type": kind} for column, kind in columns.items()},
        "depends_on": {"nodes": parents},
        "original_file_path": f"models/{name}.sql",
        "patch_path": f"shop://models/{name}.yml",
        "config": {"contract": {"enforced": enforced}},
    }


def problems(project: Path, models: list[dict[str, Any]], queries: dict[str, str]) -> list[tuple[str, str, int | None, str]]:
    (project / "models").mkdir()
    for name, query in queries.items():
        (project / "models" / f"{name}.sql").write_text(query)
    source = {"resource_type": "source", "database": "lake", "schema": "raw", "name": "orders", "columns": {}}
    manifest = {"nodes": {model["unique_id"]: model for model in models}, "sources": {"orders": source}}
    found = find_model_problems(manifest, queries, {"orders": RAW}, project)
    return [(problem.file, ".".join(map(str, problem.path)), problem.line, problem.message) for problem in found]


def test_models_that_keep_their_contracts_have_no_problem(tmp_path: Path) -> None:
    types = {"id": "bigint", "double_price": "double", "_loaded_at": "timestamp with time zone"}
    models = [node("above", ["staging"], {"id": "int8"}), node("staging", ["orders"], types)]
    assert problems(tmp_path, models, {"staging": STAGING, "above": "select id from memory.staging.staging"}) == []


def test_a_query_that_does_not_bind_has_the_line_of_its_file(tmp_path: Path) -> None:
    wrong = STAGING.replace("price * 2", "prise * 2")
    [(file, _, line, message)] = problems(tmp_path, [node("staging", ["orders"], {})], {"staging": wrong})
    assert (file, line) == ("models/staging.sql", 3)
    assert '"prise" not found' in message
    assert '"price"' in message


def test_what_reads_a_wrong_model_is_checked_with_its_contract(tmp_path: Path) -> None:
    models = [node("staging", ["orders"], {"id": "bigint"}), node("above", ["staging"], {"id": "varchar"})]
    found = problems(
        tmp_path, models, {"staging": "select nothing from lake.raw.orders", "above": "select id from memory.staging.staging"}
    )
    assert [file for file, *_ in found] == ["models/staging.sql", "models/above.yml"]
    assert "cast it there, or change data_type here" in found[1][3]


def test_columns_and_types_are_those_of_the_contract(tmp_path: Path) -> None:
    types = {"id": "varchar", "double_prise": "double", "_loaded_at": "timestamptz"}
    found = problems(tmp_path, [node("staging", ["orders"], types)], {"staging": STAGING})
    assert [(path, message) for _, path, _, message in found] == [
        ("columns.id", "is VARCHAR here and BIGINT in models/staging.sql; cast it there, or change data_type here"),
        ("columns.double_prise", "models/staging.sql has no such column; did you mean double_price?"),
        (
            "columns",
            "the contract lacks double_price, which models/staging.sql gives; describe them here, or leave them out there",
        ),
    ]
