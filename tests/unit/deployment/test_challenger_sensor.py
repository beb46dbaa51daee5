"""The sensor that lets the servers try a challenger: one materialization for each difference."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alias_registry import AliasRegistry

from mlops_assets.core.settings import Settings
from mlops_assets.deployment.challenger_sensor import build_challenger_sensor, current_assignment, declared_assignment
from mlops_assets.schema.solution import Serving
from mlops_assets.serving.active import CHALLENGER_LINK, activate, write_options

SHADOW = Serving(shadow=True)


@pytest.fixture
def registry() -> Iterator[AliasRegistry]:
    with AliasRegistry("example") as registry:
        yield registry


@pytest.fixture
def settings(registry: AliasRegistry, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, mlflow_port=registry.port)


def tick(settings: Settings, options: Serving, cursor: str | None) -> tuple[int, str | None]:
    """How many runs are asked for, and the cursor."""
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance=instance, cursor=cursor, resources={"settings": settings}) as context,
    ):
        result: Any = build_challenger_sensor({"example": options, "quiet": Serving()})(context)
    assert all(request.job_name == "example_challenger" for request in result.run_requests or [])
    return len(result.run_requests or []), result.cursor


def test_a_challenger_is_wanted_only_while_the_yaml_wants_one() -> None:
    aliases = {"example": {"challenger": 4}}
    assert declared_assignment(aliases, "example", Serving()).version is None
    assert declared_assignment(aliases, "example", SHADOW).version == 4
    assert declared_assignment({}, "example", SHADOW).version is None


def test_the_registry_is_not_asked_while_no_solution_tries_a_challenger(settings: Settings, registry: AliasRegistry) -> None:
    tick(settings, Serving(), None)
    assert registry.requests == 0


def test_each_difference_is_asked_for_once(settings: Settings, registry: AliasRegistry) -> None:
    assert tick(settings, Serving(), None) == (0, "{}")
    asked, cursor = tick(settings, SHADOW, None)
    assert (asked, tick(settings, SHADOW, cursor)) == (1, (0, cursor))
    write_options(settings.serving_directory / "example", SHADOW)
    assert tick(settings, SHADOW, cursor) == (0, cursor)
    registry.aliases["challenger"] = 4
    assert tick(settings, SHADOW, cursor)[0] == 1
    (settings.serving_directory / "example" / "4").mkdir()
    activate(settings.serving_directory / "example" / "4", CHALLENGER_LINK)
    assert current_assignment(settings, "example").version == 4
    assert tick(settings, SHADOW, cursor)[0] == 0
