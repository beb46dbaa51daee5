"""The check that servers answer with the champion: its patience, and what it shows of each process."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from alias_registry import AliasRegistry
from clinic import solution_inputs
from server_reports import report

from mlops_assets.core.settings import Settings
from mlops_assets.deployment import served_version_check as served_version
from mlops_assets.deployment.served_version import ServedSolution
from mlops_assets.schema.solution import Serving

KEY = dg.AssetKey(["example", "deployment"])


@pytest.fixture
def registry() -> Iterator[AliasRegistry]:
    with AliasRegistry() as registry:
        yield registry


@pytest.fixture
def settings(registry: AliasRegistry, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, mlflow_port=registry.port)


def test_the_check_waits_for_a_version_on_its_way(
    settings: Settings, registry: AliasRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.aliases["champion"] = 2
    report(settings, 1)
    threading.Timer(0.2, report, (settings, 2)).start()
    monkeypatch.setattr(served_version, "_POLL_SECONDS", 0.05)
    result = served_version.evaluate(KEY, served_version._settled(settings, "example", ServedSolution([], ["online"])))
    assert (result.passed, result.description) == (True, None)
    registry.aliases["champion"] = 3
    monkeypatch.setattr(served_version, "PATIENCE_SECONDS", 0.1)
    result = served_version.evaluate(KEY, served_version._settled(settings, "example", ServedSolution([], ["online"])))
    assert not result.passed
    assert "serves version 2 instead of version 3" in str(result.description)


def test_each_process_is_shown_with_what_it_serves(settings: Settings, registry: AliasRegistry) -> None:
    registry.aliases |= {"champion": 2, "champion-north": 3}
    report(settings, 2, segments={"north": 3}, problems=("a segment is slow",))
    observation = served_version.observe(settings, "example", ServedSolution(["north"], ["online"]))
    result = served_version.evaluate(KEY, observation)
    assert result.metadata["registry"].value == 2
    [row] = result.metadata["processes"].records
    assert row.data == {
        "machine": "",
        "channel": "online",
        "pid": os.getpid(),
        "version": "2",
        "segments": "north 3",
        "problems": "a segment is slow",
    }


@pytest.mark.parametrize(
    ("serving", "channels"),
    [
        ({"online": True, "stream": False}, ["online"]),
        ({"online": False, "stream": True}, ["stream"]),
        ({"online": False, "stream": False}, []),
    ],
)
def test_only_channels_that_are_turned_on_are_asked(serving: dict[str, bool], channels: list[str]) -> None:
    inputs = solution_inputs("daily")
    solution = inputs.solution.model_copy(update={"serving": Serving(**serving)})
    assert served_version.served_solution(served_version.SolutionInputs(solution, inputs.spine, (), (), {})).channels == channels
