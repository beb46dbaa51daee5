"""Feature views as the dbt manifest describes them, from small manifests."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.feature_store.model_problems import FeatureViewError, UnknownModelError
from mlops_assets.feature_store.registry import FeatureRegistry


def node(name: str, feature_view: dict[str, Any] | None, *, version: int | None, latest: int | None) -> dict[str, Any]:
    suffix = f"_v{version}" if version else ""
    columns = {
        column: {"name": column, "data_type": "double", "description": "x"} for column in ("carrier", "at", "delay", "_loaded_at")
    }
    return {
        "unique_id": f"model.{name}{suffix}",
        "resource_type": "model",
        "name": name,
        "alias": f"{name}{suffix}",
        "schema": "features",
        "description": f"About {name}.",
        "version": version,
        "latest_version": latest,
        "original_file_path": f"models/{name}{suffix}.sql",
        "patch_path": f"mlops://models/{name}.yml",
        "columns": columns,
        "meta": {"owner": "team:a", **({"feature_view": feature_view} if feature_view is not None else {})},
    }


def unique(model: dict[str, Any], *columns: str) -> dict[str, Any]:
    """The data test that `columns` are unique together."""
    name, arguments = (
        ("unique", {"column_name": columns[0]}) if len(columns) == 1 else ("unique_combination", {"columns": columns})
    )
    return {
        "resource_type": "test",
        "attached_node": model["unique_id"],
        "test_metadata": {"name": name, "kwargs": arguments},
    }


def read(tmp_path: Path, *nodes: dict[str, Any]) -> FeatureRegistry:
    """The registry of the models `nodes`; where they come without a test, each has the one that a view needs."""
    tests = [] if any(node["resource_type"] == "test" for node in nodes) else [unique(node, "carrier", "at") for node in nodes]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"nodes": {str(number): each for number, each in enumerate([*nodes, *tests])}}))
    return FeatureRegistry.from_manifest(path)


GOOD: dict[str, Any] = {"entity": ["carrier"], "event_timestamp": "at", "freshness_days": 30}


def test_a_view_has_what_its_meta_says_and_sensible_defaults(tmp_path: Path) -> None:
    view = read(tmp_path, node("history", GOOD, version=None, latest=None)).view("history", None)
    assert (view.version, view.entity, view.event_timestamp, view.freshness_days) == (1, ("carrier",), "at", 30)
    assert (view.online, view.owner, view.refresh_days, view.features) == (True, "team:a", None, ("delay",))
    assert view.description == "About history."


def test_versions_of_a_model_are_versions_of_the_view(tmp_path: Path) -> None:
    registry = read(
        tmp_path,
        node("history", GOOD, version=1, latest=2),
        node("history", GOOD, version=2, latest=2),
        node("history", GOOD, version=3, latest=2),
    )
    assert sorted(registry.views) == [("history", 1), ("history", 2), ("history", 3)]
    assert registry.view("history", 1).model.table == "features.history_v1"
    # The name alone is dbt's latest version; version 3 is not released yet.
    assert registry.model("history").table == "features.history_v2"
    with pytest.raises(UnknownModelError, match="no version 4"):
        registry.view("history", 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"freshnes_days": 1},
            r"models/history.yml: history: meta.feature_view.freshnes_days: unknown field; did you mean freshness_days",
        ),
        ({"entity": []}, r"entity: List should have at least 1 item"),
        ({"entity": ["carier"]}, r"entity.0: the model has no column 'carier'; did you mean carrier"),
        ({"event_timestamp": "zzz"}, r"event_timestamp: the model has no column 'zzz'; allowed: _loaded_at, at, carrier, delay"),
        ({"freshness_days": "soon"}, r"freshness_days: Input should be a valid integer"),
        ({"freshness_days": 0}, r"freshness_days: Input should be greater than or equal to 1"),
        ({"event_timestamp": None}, r"freshness_days: values without event_timestamp hold at all times"),
        ({"online": "perhaps"}, r"online: Input should be a valid boolean"),
        ({"version": 2}, r"version: 2 is not the dbt version of the model, 1"),
    ],
)
def test_wrong_meta_names_the_model_the_field_and_the_remedy(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatureViewError, match=message):
        read(tmp_path, node("history", GOOD | change, version=None, latest=None))


def test_the_entity_is_required(tmp_path: Path) -> None:
    with pytest.raises(FeatureViewError, match=r"entity: this field is required"):
        read(tmp_path, node("history", {"event_timestamp": "at"}, version=None, latest=None))


def test_every_feature_is_described(tmp_path: Path) -> None:
    wrong = node("history", GOOD, version=None, latest=None)
    wrong["columns"]["delay"]["description"] = ""
    with pytest.raises(FeatureViewError, match="describe the columns delay"):
        read(tmp_path, wrong)


@pytest.mark.parametrize(
    ("columns", "event_timestamp", "allowed"),
    [
        (("carrier", "at"), "at", True),
        (("carrier",), "at", True),
        (("carrier",), None, True),
        (("at", "carrier"), None, False),
        (("delay",), "at", False),
        (("carrier", "at", "delay"), "at", False),
    ],
)
def test_two_rows_of_one_entity_and_time_are_tested_for(
    tmp_path: Path, columns: tuple[str, ...], event_timestamp: str | None, allowed: bool
) -> None:
    view = {"entity": ["carrier"], "event_timestamp": event_timestamp}
    model = node("history", view, version=None, latest=None)
    other = unique(node("other", None, version=None, latest=None), "carrier")
    if allowed:
        read(tmp_path, model, other, unique(model, *columns))
        return
    needed = "carrier, at" if event_timestamp else "carrier"
    with pytest.raises(FeatureViewError, match=rf"models/history.yml: history: no data test .*columns: \[{needed}\]"):
        read(tmp_path, model, other, unique(model, *columns))
