from typing import Any

from mlops_assets.clients.asset_state import asset_state


def execution(status: str, severity: str | None = None) -> dict[str, Any]:
    return {"status": status, "evaluation": {"severity": severity} if severity else None}


def test_only_what_was_evaluated_and_blocks_is_failing() -> None:
    checks = {
        "passed": execution("SUCCEEDED", "ERROR"),
        "blocks": execution("FAILED", "ERROR"),
        "warns": execution("FAILED", "WARN"),
        "after_one_that_blocked": execution("EXECUTION_FAILED"),
        "never_ran": None,
        "of_days": execution("SUCCEEDED", "ERROR"),
    }
    by_partition = {
        "of_days": {
            "ranges": [
                {"startKey": "2020-01-01", "endKey": "2020-01-04", "status": "SUCCEEDED"},
                {"startKey": "2020-01-05", "endKey": "2020-01-05", "status": "FAILED"},
                {"startKey": "2020-01-08", "endKey": "2020-01-09", "status": "FAILED"},
            ]
        }
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
            "jobNames": ["__ASSET_JOB", "problem_training"],
            "repository": {"name": "__repository__", "location": {"name": "mlops_assets"}},
            "assetPartitionStatuses": None,
            "assetMaterializations": [],
            "assetChecksOrError": {
                "checks": [
                    {
                        "name": name,
                        "blocking": name != "warns",
                        "executionForLatestMaterialization": each,
                        "partitionStatuses": by_partition.get(name),
                    }
                    for name, each in checks.items()
                ]
            },
        },
        lambda key, check, partition: "WARN" if partition == "2020-01-09" else "ERROR",
    )
    assert state.jobs == ("problem_training",)
    assert state.failing_checks == ("blocks", "of_days (2020-01-05)")
    assert state.warning_checks == ("after_one_that_blocked (not evaluated)", "of_days (2020-01-08 to 2020-01-09)", "warns")
