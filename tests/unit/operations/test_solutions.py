"""What `mlops status` says of solutions, from the states of their assets and a registry that answers over HTTP."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alias_registry import AliasRegistry
from asset_states import asset

from mlops_assets.clients.approvals import ApprovalEntry, record_approval
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import stage_tags
from mlops_assets.core.settings import Settings
from mlops_assets.operations.solutions import configuration_errors, declared_solution, solution_states

ASSETS = {
    each.key: each
    for each in (
        asset("raw/orders", failing_checks=("row_count",)),
        asset("raw/other", failing_checks=("ranges",)),
        asset("x/spine", "raw/orders"),
        asset("x/model", "x/spine", tags=stage_tags("x", "model"), warning_checks=("constant_columns",)),
        asset(
            "x/predictions",
            "x/model",
            tags=stage_tags("x", "predictions"),
            ranges=(("2024-01-01", "2024-01-05"), ("2024-02-01", "2024-02-03")),
        ),
        asset("a/predictions", tags=stage_tags("a", "predictions")),
    )
}


def question(version: int, segment: str | None) -> ApprovalEntry:
    return ApprovalEntry(
        step="asked",
        solution="x",
        version=version,
        segment=segment,
        bundle_sha256="0",
        by="dagster",
        identified_by="",
        reason="passed",
        run_id="r",
        at=datetime(2024, 1, 1, tzinfo=UTC),
    )


def test_a_solution_fails_by_the_checks_of_all_that_it_needs_and_nothing_else(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    for version, segment in ((4, None), (5, "UA")):
        record_approval(settings.approvals_file, Signer(settings.signing_key_file), question(version, segment))
    with AliasRegistry() as registry:
        registry.aliases["champion"] = 3
        states = solution_states(replace(settings, mlflow_port=registry.port), ASSETS)
    assert list(states) == ["a", "x"]
    assert states["x"] == {
        "champion": 3,
        "waits_for_approval": ["4", "5 (UA)"],
        "last_partition": "2024-02-03",
        "failing_checks": ["raw/orders: row_count"],
        "warnings": ["x/model: constant_columns"],
    }
    assert (states["a"]["last_partition"], states["a"]["failing_checks"]) == (None, [])
    assert states["a"]["waits_for_approval"] == []
    settings.signing_key_file.unlink()
    assert "the record was changed" in str(solution_states(settings, ASSETS)["x"]["waits_for_approval"])


def test_without_a_registry_the_champion_is_not_known_and_the_rest_is(tmp_path: Path) -> None:
    states = solution_states(Settings(home=tmp_path, mlflow_port=1), ASSETS)
    assert [state["champion"] for state in states.values()] == [None, None]
    assert states["x"]["last_partition"] == "2024-02-03"


def test_an_unknown_solution_is_named() -> None:
    with pytest.raises(StackError, match="No file of defs/ declares the solution 'nothing'"):
        declared_solution("nothing")


def test_faults_of_folders_are_lines_with_their_place() -> None:
    description = "The folder was not loaded.\n\n- `defs/x/defs.yaml:7: name: - is no name`\n- `defs/x/defs.yaml:9: other`\n"
    assets = {"configuration_error/x": asset("configuration_error/x", description=description), **ASSETS}
    assert configuration_errors(assets) == ["defs/x/defs.yaml:7: name: - is no name", "defs/x/defs.yaml:9: other"]
    assert configuration_errors(ASSETS) == []
