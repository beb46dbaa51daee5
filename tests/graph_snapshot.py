"""The graph of the bundled definitions as text: what Dagster shows of assets, checks, jobs and sensors, sorted. No tests here.

`python tests/graph_snapshot.py` renews `graph.txt`.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetNode
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from mlops_assets.definitions import defs

SNAPSHOT = Path(__file__).with_name("graph.txt")
RENEW = "python tests/graph_snapshot.py"


def graph_text(definitions: dg.Definitions) -> str:
    """One line an asset, a dependency, a check, a job and a sensor."""
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    keys = sorted(graph.get_all_asset_keys())
    lines = [line for key in keys for line in _asset(graph.get(key), repository)]
    lines += [line for job in sorted(repository.get_all_jobs(), key=lambda job: job.name) for line in _job(job)]
    lines += [_sensor(sensor) for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name)]
    lines += [
        f"schedule {schedule.name}: {schedule.cron_schedule}"
        for schedule in sorted(repository.schedule_defs, key=lambda schedule: schedule.name)
    ]
    return "\n".join(lines) + "\n"


def _asset(node: AssetNode, repository: dg.RepositoryDefinition) -> Iterator[str]:
    facts = [
        str(node.partitions_def) if node.partitions_def else "no partitions",
        f"condition {node.automation_condition.get_label()}" if node.automation_condition else "no condition",
    ]
    if isinstance(policy := node.assets_def.get_asset_spec(node.key).freshness_policy, TimeWindowFreshnessPolicy):
        facts.append(f"stale after {policy.fail_window.to_timedelta().days} days")
    yield f"asset {node.key.to_user_string()}: {'; '.join(facts)}"
    for parent in sorted(node.parent_keys):
        mapping = node.assets_def.get_partition_mapping(parent)
        yield f"    reads {parent.to_user_string()}" + (f" by {mapping!r}" if mapping is not None else "")
    for key in sorted(node.check_keys):
        spec = repository.asset_graph.get_check_spec(key)
        yield f"    check {key.name}" + (" blocks" if spec.blocking else "") + (" by partition" if spec.partitions_def else "")


def _job(job: dg.JobDefinition) -> Iterator[str]:
    yield f"job {job.name}"
    # Dagster's own jobs hold all assets.
    if not job.name.startswith("__"):
        yield from (f"    runs {key.to_user_string()}" for key in sorted(job.asset_layer.selected_asset_keys))


def _sensor(sensor: dg.SensorDefinition) -> str:
    return f"sensor {sensor.name}: {sensor.default_status.value.lower()}, every {sensor.minimum_interval_seconds} s"


if __name__ == "__main__":
    SNAPSHOT.write_text(graph_text(defs()))
