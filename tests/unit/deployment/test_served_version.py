"""Whether what serves is what should: the observation, its faults and the sensor, with a registry that answers over HTTP."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alias_registry import AliasRegistry
from server_reports import report

from mlops_assets.core.settings import Settings
from mlops_assets.deployment.served_version import Observation, ServedSolution, build_served_version_sensor, observe

KEY = dg.AssetKey(["example", "deployment"])


@pytest.fixture
def registry() -> Iterator[AliasRegistry]:
    with AliasRegistry("example") as registry:
        yield registry


@pytest.fixture
def settings(registry: AliasRegistry, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, mlflow_port=registry.port)


def seen(settings: Settings) -> Observation:
    return observe(settings, "example", ServedSolution(["north", "south"], ["online", "stream"]))


def test_every_process_of_every_channel_must_serve_the_champion(settings: Settings, registry: AliasRegistry) -> None:
    assert seen(settings).faults == []
    registry.aliases["champion"] = 2
    assert seen(settings).faults == ["no process of the channel online runs", "no process of the channel stream runs"]
    report(settings, 2)
    report(settings, 2, channel="stream")
    assert seen(settings).faults == []
    report(settings, 1, problems=("example/2 does not serve as champion: BundleError: changed",))
    [fault] = seen(settings).faults
    assert f"process {os.getpid()} (online) serves version 1 instead of version 2: example/2 does not serve" in fault
    report(settings, None)
    assert "serves nothing instead of version 2" in seen(settings).faults[0]
    report(settings, 2, age=120)
    assert "has not reported for a while" in seen(settings).faults[0]


def test_segments_count_too(settings: Settings, registry: AliasRegistry) -> None:
    registry.aliases |= {"champion": 2, "champion-north": 3}
    report(settings, 2, segments={"north": 3})
    report(settings, 2, channel="stream")
    assert seen(settings).faults == [f"process {os.getpid()} (stream) serves version 2 instead of version 2, 3 for north"]


def test_the_sensor_asks_once_for_each_state_of_affairs(settings: Settings, registry: AliasRegistry) -> None:
    sensor = build_served_version_sensor({"example": ServedSolution([], ["online"]), "other": ServedSolution([], ["online"])})

    def tick(cursor: str | None) -> tuple[list[dg.RunRequest], str | None]:
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance=instance, cursor=cursor, resources={"settings": settings}) as context,
        ):
            result: Any = sensor(context)
        return list(result.run_requests or []), result.cursor

    assert tick(None) == ([], "{}")
    registry.aliases["champion"] = 1
    report(settings, 1)
    [request], cursor = tick(None)
    assert request.job_name == "example_served_version"
    assert request.asset_check_keys == [dg.AssetCheckKey(KEY, "served_version")]
    assert tick(cursor) == ([], cursor)
    registry.aliases["champion"] = 2
    assert len(tick(cursor)[0]) == 1
