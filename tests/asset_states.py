"""States of assets as Dagster's GraphQL tells them. No tests here."""

from typing import Any

from mlops_assets.clients.asset_state import AssetState


def asset(key: str, *dependencies: str, **fields: Any) -> AssetState:
    """A materialized asset with partitions; `fields` replace what is usual."""
    defaults = {
        "description": "",
        "partitioned": True,
        "executable": True,
        "tags": {},
        "operations": (),
        "jobs": (),
        "location": ("", ""),
        "ranges": (),
        "materialized": True,
        "failing_checks": (),
        "warning_checks": (),
    }
    return AssetState(key=key, dependencies=dependencies, **{**defaults, **fields})
