from typing import Any

from mlops_assets.clients.dagster_client import asset_state


def execution(status: str, severity: str | None = None) -> dict[str, Any]:
    return {"status": status, "evaluation": {"severity": severity} if severity else None}


def test_only_what_was_evaluated_and_blocks_is_failing() -> None:
    checks = {
        "passed": execution("SUCCEEDED", "ERROR"),
        "blocks": execution("FAILED", "ERROR"),
        "warns": execution("FAILED", "WARN"),
        "after_one_that_blocked": execution("EXECUTION_FAILED"),
        "never_ran": None,
    }
    state = asset_state(
        {
            "assetKey": {"path": ["problem", "deployment"]},
            "description": None,
            "isPartitioned": False,
            "isExecutable": True,
            "tags": [],
            "dependencyKeys": [],
            "opNames": [],
            "repository": {"name": "__repository__", "location": {"name": "mlops_assets"}},
            "assetPartitionStatuses": None,
            "assetMaterializations": [],
            "assetChecksOrError": {
                "checks": [{"name": name, "executionForLatestMaterialization": each} for name, each in checks.items()]
            },
        }
    )
    assert state.failing_checks == ("blocks",)
    assert state.warning_checks == ("after_one_that_blocked (not evaluated)", "warns")
