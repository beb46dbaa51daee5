"""Deployment targets: a solution and its segments each have the champion that their own last deployment left."""

from dataclasses import replace

import dagster as dg
import pytest
from clinic import solution_inputs

from mlops_assets.core.deployment_target import LEFT_TO_SOLUTION, DeploymentTarget
from mlops_assets.schema.solution import Segments

INPUTS = solution_inputs("daily")
SOLUTION = INPUTS.solution.model_copy(update={"segments": Segments(column="age", values=["old", "young"])})
INPUTS = replace(INPUTS, solution=SOLUTION)
WHOLE = INPUTS.deployment_target
OLD, YOUNG = INPUTS.segment_deployment_targets


def deploy(instance: dg.DagsterInstance, target: DeploymentTarget, date: str, version: int, *, left: bool = False) -> None:
    metadata = {LEFT_TO_SOLUTION: left, "model_version": version}
    partition = str(target.partition_key(date))
    instance.report_runless_asset_event(dg.AssetMaterialization(target.key, partition=partition, metadata=metadata))


def test_a_target_without_a_deployment_has_no_champion() -> None:
    instance = dg.DagsterInstance.ephemeral()
    for target in (WHOLE, OLD, YOUNG):
        assert target.newest_deployment(instance) is None
        assert not target.has_champion(instance)


@pytest.mark.parametrize("target", [WHOLE, OLD, YOUNG])
def test_the_deployment_of_one_target_is_none_of_another(target: DeploymentTarget) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, target, "2020-01-10", 1)
    assert [each.has_champion(instance) for each in (WHOLE, OLD, YOUNG)] == [each is target for each in (WHOLE, OLD, YOUNG)]


def test_the_newest_deployment_counts_whatever_its_training_date() -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, OLD, "2020-02-10", 1)
    deploy(instance, OLD, "2020-01-10", 2, left=True)
    assert not OLD.has_champion(instance)
    deploy(instance, YOUNG, "2020-03-10", 3)
    assert not OLD.has_champion(instance)
    deploy(instance, OLD, "2020-01-10", 4)
    assert OLD.has_champion(instance)
    newest = OLD.newest_deployment(instance)
    assert newest is not None
    assert newest.version == 4


def test_the_partition_of_a_segment_names_date_and_segment() -> None:
    key = OLD.partition_key("2020-01-10")
    assert isinstance(key, dg.MultiPartitionKey)
    assert key.keys_by_dimension == {"training_date": "2020-01-10", "segment": "old"}
    assert WHOLE.partition_key("2020-01-10") == "2020-01-10"
    assert OLD.partitions.has_partition_key(str(key))
