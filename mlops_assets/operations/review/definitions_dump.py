"""The definitions of a project as JSON, by a process of its own: `python definitions_dump.py <entry point> <file>`.

It is run on a revision whose platform may be another one than that of the caller. So it imports nothing of the platform but the command
`mlops prepare`, and Dagster.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg


def dump_definitions(definitions: dg.Definitions) -> dict[str, dict[str, Any]]:
    """Return assets, checks, jobs, schedules and sensors by name, each with what Dagster does with it as plain values."""
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    dumped: dict[str, dict[str, Any]] = {"asset": {}, "check": {}, "job": {}, "schedule": {}, "sensor": {}}
    for key in graph.get_all_asset_keys():
        dumped["asset"][key.to_user_string()] = _asset(graph.get(key))
    for check in graph.asset_check_keys:
        spec = graph.get_check_spec(check)
        dumped["check"][f"{check.asset_key.to_user_string()}: {check.name}"] = {
            "blocking": spec.blocking,
            "partitions": _text(spec.partitions_def),
        }
    # Dagster's own jobs hold all assets.
    for job in (job for job in repository.get_all_jobs() if not job.name.startswith("__")):
        dumped["job"][job.name] = {"runs": sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)}
    for schedule in repository.schedule_defs:
        dumped["schedule"][schedule.name] = {"cron": _text(schedule.cron_schedule), "status": schedule.default_status.value}
    for sensor in repository.sensor_defs:
        dumped["sensor"][sensor.name] = {
            "interval_seconds": sensor.minimum_interval_seconds,
            "status": sensor.default_status.value,
        }
    return dumped


def _asset(node: Any) -> Mapping[str, Any]:
    spec = node.assets_def.get_asset_spec(node.key) if node.is_materializable else None
    parents = {parent: node.assets_def.get_partition_mapping(parent) for parent in node.parent_keys} if spec else {}
    return {
        "group": node.group_name,
        "partitions": _text(node.partitions_def),
        "condition": _condition(node.automation_condition),
        "freshness": _text(spec.freshness_policy) if spec else None,
        "code_version": node.code_version,
        "reads": {key.to_user_string(): _text(mapping) for key, mapping in sorted(parents.items())},
        "description": spec.description if spec else None,
        "column_schema": _columns(spec.metadata if spec else {}),
    }


def _condition(condition: dg.AutomationCondition | None) -> str | None:
    """The label of a condition, and a number that changes with anything in it."""
    if condition is None:
        return None
    snapshot = condition.get_node_snapshot(condition.get_node_unique_id(parent_unique_id=None, index=None, target_key=None))
    return f"{condition.get_label() or condition.name} ({snapshot.unique_id[:8]})"


def _columns(metadata: Mapping[str, Any]) -> dict[str, str]:
    schema = metadata.get("dagster/column_schema")
    columns = getattr(getattr(schema, "schema", schema), "columns", ())
    return {column.name: column.type for column in columns}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


if __name__ == "__main__":
    entry_point, target = sys.argv[1:]
    command: Any = importlib.import_module("mlops_assets.cli.main").app
    command(["prepare"], standalone_mode=False)
    loaded = importlib.import_module(entry_point).defs()
    Path(target).write_text(json.dumps(dump_definitions(loaded)))
