"""The tags of a step with resources of its own."""

from mlops_assets.schema.resources_section import StageResources
from mlops_assets.stages.pod_tags import POD_TAG, pod_tags


def test_memory_is_requested_and_limited_processors_are_requested_alone() -> None:
    tags = pod_tags(StageResources(cpu=0.5, memory="16Gi"))
    assert tags[POD_TAG]["container_config"]["resources"] == {
        "requests": {"cpu": "0.5", "memory": "16Gi"},
        "limits": {"memory": "16Gi"},
    }


def test_what_is_left_out_is_as_for_every_run() -> None:
    assert pod_tags(StageResources(cpu=4))[POD_TAG]["container_config"]["resources"] == {"requests": {"cpu": "4"}}
    assert pod_tags(None) == {}
