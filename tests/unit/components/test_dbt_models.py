"""How dbt nodes look in Dagster, from a small manifest."""

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from mlops_assets.components.dbt_models import DbtModels, DbtModelsAttributes
from mlops_assets.core.partitions import build_partitions
from mlops_assets.features.dbt_translation import LakeTranslator
from mlops_assets.schema.configuration_errors import ConfigurationError

DAILY = build_partitions(date(2013, 1, 1), date(2014, 1, 1), "daily")


def _node(name: str, *, materialized: str, parents: list[str], **meta: Any) -> dict[str, Any]:
    return {
        "unique_id": f"model.mlops.{name}",
        "name": name,
        "alias": name.removeprefix("flight_delay_"),
        "schema": "features",
        "resource_type": "model",
        "description": f"About {name}.",
        "config": {"materialized": materialized, "meta": meta},
        "checksum": {"checksum": name},
        "depends_on": {"nodes": parents, "macros": ["macro.mlops.history", "macro.dbt.builtin"]},
    }


@pytest.fixture
def manifest() -> dict[str, Any]:
    source = {
        "unique_id": "source.mlops.raw.flights",
        "name": "flights",
        "schema": "raw",
        "resource_type": "source",
        "config": {"meta": {"partition_column": "flight_date"}},
    }
    nodes = [
        _node("near", materialized="incremental", parents=["source.mlops.raw.flights"], partition_column="d", owner="team:a"),
        _node(
            "far", materialized="incremental", parents=["model.mlops.near"], partition_column="d", dagster={"history_days": 32}
        ),
        _node("flight_delay_spine", materialized="incremental", parents=["model.mlops.near"], partition_column="d"),
        _node("whole", materialized="table", parents=["model.mlops.near"]),
    ]
    return {
        "metadata": {"project_name": "examples"},
        "sources": {source["unique_id"]: source},
        "nodes": {node["unique_id"]: node for node in nodes},
        "macros": {
            "macro.mlops.history": {"macro_sql": "1", "depends_on": {"macros": ["macro.mlops.window"]}},
            "macro.mlops.window": {"macro_sql": "2", "depends_on": {"macros": []}},
        },
    }


def test_names_are_those_of_the_lake(manifest: dict[str, Any]) -> None:
    translator = LakeTranslator(manifest, DAILY, "daily", "orders")
    assert translator.get_asset_key(manifest["nodes"]["model.mlops.flight_delay_spine"]) == dg.AssetKey(["features", "spine"])
    assert translator.get_asset_key(manifest["sources"]["source.mlops.raw.flights"]) == dg.AssetKey(["raw", "flights"])
    assert translator.get_group_name(manifest["nodes"]["model.mlops.near"]) == "orders_features"
    assert translator.get_owners(manifest["nodes"]["model.mlops.near"]) == ["team:a"]
    assert translator.get_owners(manifest["nodes"]["model.mlops.far"]) is None


def test_only_incremental_models_are_partitioned(manifest: dict[str, Any]) -> None:
    translator = LakeTranslator(manifest, DAILY, "daily", "orders")
    assert translator.get_partitions_def(manifest["nodes"]["model.mlops.near"]) == DAILY
    assert translator.get_partitions_def(manifest["nodes"]["model.mlops.whole"]) is None


@pytest.mark.parametrize(("cadence", "offset"), [("daily", -32), ("weekly", -5), ("monthly", -2), ("yearly", -1)])
def test_mapping_covers_the_history(manifest: dict[str, Any], cadence: str, offset: int) -> None:
    nodes = manifest["nodes"]
    translator = LakeTranslator(manifest, DAILY, cadence, "orders")
    # Readers of one table share a mapping: that of the one that goes back furthest.
    for reader in ("far", "flight_delay_spine"):
        mapping = translator.get_partition_mapping(nodes[f"model.mlops.{reader}"], nodes["model.mlops.near"])
        assert isinstance(mapping, dg.TimeWindowPartitionMapping)
        assert (mapping.start_offset, mapping.end_offset) == (offset, 0)
        assert mapping.allow_nonexistent_upstream_partitions


def test_mapping_of_tables_without_partitions(manifest: dict[str, Any]) -> None:
    nodes, source = manifest["nodes"], manifest["sources"]["source.mlops.raw.flights"]
    translator = LakeTranslator(manifest, DAILY, "daily", "orders")
    assert translator.get_partition_mapping(nodes["model.mlops.whole"], nodes["model.mlops.near"]) is None
    own = translator.get_partition_mapping(nodes["model.mlops.near"], source)
    assert isinstance(own, dg.TimeWindowPartitionMapping)
    assert own.start_offset == 0


def test_code_version_follows_the_macros_of_the_project(manifest: dict[str, Any]) -> None:
    node = manifest["nodes"]["model.mlops.near"]
    before = LakeTranslator(manifest, DAILY, "daily", "orders").get_code_version(node)
    manifest["macros"]["macro.mlops.window"]["macro_sql"] = "3"
    assert LakeTranslator(manifest, DAILY, "daily", "orders").get_code_version(node) != before


def test_attributes_are_strict() -> None:
    partitions = {"start": "2013-01-01", "cadence": "daily"}
    DbtModelsAttributes.model_validate({"project": "dbt_project", "select": "tag:x", "partitions": partitions})
    for wrong in (
        {"select": "model_name"},
        {"partitions": {**partitions, "cadence": "hourly"}},
        {"sellect": "tag:x"},
    ):
        with pytest.raises(ValidationError):
            DbtModelsAttributes.model_validate({"project": "dbt_project", "select": "tag:x", "partitions": partitions} | wrong)


def test_a_missing_project_is_named() -> None:
    attributes = DbtModelsAttributes.model_validate(
        {"project": "no_such_folder", "select": "tag:x", "partitions": {"start": "2013-01-01", "cadence": "daily"}}
    )
    with pytest.raises(ConfigurationError, match=r"project: there is no dbt_project\.yml in .*no_such_folder"):
        DbtModels(attributes).check()


def test_an_unknown_tag_has_a_hint(tmp_path: Path) -> None:
    """The nearest tag of the manifest is offered."""
    project = tmp_path / "dbt"
    (project / "target").mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: mlops\n")
    (project / "target" / "manifest.json").write_text(
        '{"nodes": {"model.mlops.a": {"resource_type": "model", "tags": ["census"], "unique_id": "model.mlops.a"}}}'
    )
    attributes = DbtModelsAttributes.model_validate(
        {"project": str(project), "select": "tag:cenus", "partitions": {"start": "2013-01-01", "cadence": "daily"}}
    )
    with pytest.raises(ConfigurationError, match="no dbt model has the tag 'cenus'; did you mean census"):
        DbtModels(attributes).check()
