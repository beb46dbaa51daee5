"""The tags by which the step of a stage gets what its pod may use, on Kubernetes."""

from typing import Any

from mlops_assets.schema.resources_section import StageResources

POD_TAG = "dagster-k8s/config"
"""Read by the executor that gives each step a pod. As a tag of a job it would not reach the pods of steps (dagster PR 33619)."""


def pod_tags(resources: StageResources | None) -> dict[str, Any]:
    """The tags of a step with these resources; none without. Memory is requested and limited, so that a node never has too little of it."""
    if resources is None:
        return {}
    memory = {} if resources.memory is None else {"memory": resources.memory}
    requests = memory if resources.cpu is None else {"cpu": f"{resources.cpu:g}", **memory}
    return {POD_TAG: {"container_config": {"resources": {"requests": requests, **({"limits": memory} if memory else {})}}}}
