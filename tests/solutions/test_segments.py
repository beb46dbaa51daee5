"""Models by segment on the running stack: gates against what predicts the rows now, routing of the batch, rollback to the solution's model."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import inprocess
import pytest
from running_stack import Demo, Platform

from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.components.ml_solution import resolve_inputs
from mlops_assets.core.project import current_project
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.active import champion_link, linked_bundle, segment_links
from mlops_assets.serving.folder_store import FolderStore
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.evaluation import build_evaluation
from mlops_assets.training.model import build_model

pytestmark = pytest.mark.long

SOLUTION, SEGMENT = "flight_delay", "JFK"
UNLIMITED = {"roc_auc": 1.0}
"""A tolerance that every candidate keeps."""

STAGES = (f"{SOLUTION}/segment_model", f"{SOLUTION}/segment_evaluation")
SCORED = ("2013-02-27", "2013-02-28")


def segment_inputs(**gates: Any) -> SolutionInputs:
    """The inputs of the solution's segments, with other gates and fewer trees."""
    attributes = inprocess.attributes(SOLUTION)
    attributes["gates"] |= gates
    attributes["training"]["estimator"]["parameters"]["max_iter"] = 40
    registry = FeatureRegistry.from_manifest(current_project().dbt_manifest)
    return replace(resolve_inputs(Solution.model_validate(attributes), registry), by_segment=True)


def train(platform: Platform, instance: dg.DagsterInstance, training_date: str, **gates: Any) -> dg.ExecuteInProcessResult:
    """Model and evaluation of the segment with other gates; a month of one airport reaches no floor but chance."""
    inputs = segment_inputs(floor={"roc_auc": 0.5}, **gates)
    partition = dg.MultiPartitionKey({"segment": SEGMENT, "training_date": training_date})
    return dg.materialize(
        [build(inputs) for build in (build_model, build_evaluation)],
        resources=platform.resources,
        instance=instance,
        partition_key=partition,
        raise_on_error=False,
    )


def versions_by_origin(platform: Platform) -> dict[str, set[int]]:
    """Score two days, and tell which versions scored the flights of each airport."""
    [predictions] = [each for each in inprocess.load_assets(SOLUTION) if dg.AssetKey([SOLUTION, "predictions"]) in each.keys]
    keys, (first, last) = [f"{SOLUTION}/predictions"], SCORED
    configuration = {"supersede": True, "reason": "another model predicts"}
    run_config = {"ops": {f"{SOLUTION}__predictions": {"config": configuration}}}
    result = inprocess.materialize(
        [predictions], keys, first=first, last=last, resources=platform.resources, run_config=run_config
    )
    assert result.success, inprocess.failures(result)
    rows = platform.rows(
        f"SELECT origin, list(DISTINCT model_version) FROM {SOLUTION}.predictions "
        f"WHERE _counted AND flight_date BETWEEN DATE '{first}' AND DATE '{last}' GROUP BY origin"
    )
    return {origin: set(versions) for origin, versions in rows}


@pytest.fixture(scope="module")
def champion(platform: Platform, demo: Demo) -> Iterator[RegisteredModel]:
    """The champion of all rows; in the end the segment is left to it."""
    found = platform.registry.champion(SOLUTION)
    assert found is not None
    yield found
    platform.mlops("rollback", SOLUTION, "--segment", SEGMENT, "--to", str(found.version), "--reason", "end of the tests")
    versions_by_origin(platform)


@pytest.fixture(scope="module")
def instance(platform: Platform, champion: RegisteredModel) -> dg.DagsterInstance:
    """A Dagster that remembers the checks of the champion's dataset, which is one of the gates."""
    made, day = dg.DagsterInstance.ephemeral(), champion.tags["training_date"]
    keys = [f"{SOLUTION}/training_dataset"]
    assets = inprocess.load_assets(SOLUTION)
    assert inprocess.materialize(assets, keys, first=day, last=day, resources=platform.resources, instance=made).success
    return made


@pytest.fixture(scope="module")
def refused(platform: Platform, champion: RegisteredModel, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """A first version of the segment, which would have to be better than what predicts its rows by more than any is."""
    return train(platform, instance, champion.tags["training_date"], against_champion={"roc_auc": -0.2})


@pytest.fixture(scope="module")
def version(
    platform: Platform, champion: RegisteredModel, instance: dg.DagsterInstance, refused: dg.ExecuteInProcessResult
) -> int:
    """The same version, accepted by other gates, which waits for its promotion."""
    result = train(platform, instance, champion.tags["training_date"], against_champion=UNLIMITED)
    assert result.success, inprocess.failed_checks(result)
    found = platform.registry.by_alias(SOLUTION, f"challenger-{SEGMENT}")
    assert found is not None
    assert found.segment == SEGMENT
    assert found.version == model_version(refused)
    return found.version


def model_version(result: dg.ExecuteInProcessResult) -> int:
    """The version that a run of the segment's stages trained."""
    [model] = [
        event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey(STAGES[0].split("/"))
    ]
    return int(model.materialization.metadata["model_version"].value)  # type: ignore[arg-type]


def test_its_rival_is_what_predicts_its_rows_now(
    platform: Platform, champion: RegisteredModel, refused: dg.ExecuteInProcessResult
) -> None:
    version = model_version(refused)
    [check] = [check for check in refused.get_asset_check_evaluations() if check.check_name == "against_champion"]
    assert not check.passed
    own = f"FROM {SOLUTION}.segment_evaluation WHERE model_version = {version}"
    rows = platform.value(f"SELECT count(*) {own} AND segment = '{SEGMENT}'")
    assert rows == platform.value(f"SELECT count(*) {own}")
    assert f"is worse (version {champion.version} as it was before its refit on the same {rows:,} rows of " in str(
        check.description
    )
    # The models of all rows have a table of their own.
    of_the_champion = f"FROM {SOLUTION}.evaluation WHERE model_version = {champion.version}"
    assert 0 < rows < platform.value(f"SELECT count(*) {of_the_champion}")
    assert platform.value(f"SELECT count(*) FROM {SOLUTION}.evaluation WHERE model_version = {version}") == 0
    assert platform.registry.by_alias(SOLUTION, f"challenger-{SEGMENT}") is None


def test_a_segment_without_a_champion_is_predicted_by_the_solutions(
    platform: Platform, champion: RegisteredModel, version: int
) -> None:
    assert versions_by_origin(platform) == {origin: {champion.version} for origin in ("EWR", "JFK", "LGA")}


def test_promoted_it_predicts_its_rows_and_no_others(platform: Platform, champion: RegisteredModel, version: int) -> None:
    done = platform.mlops("promote", SOLUTION, "--segment", SEGMENT, "--reason", "as good, and ours")
    assert done.returncode == 0, done.stderr
    assert f"Version {version} of {SOLUTION} predicts the rows of {SEGMENT} now, after version {champion.version}." in done.stdout
    assert versions_by_origin(platform) == {"EWR": {champion.version}, "JFK": {version}, "LGA": {champion.version}}
    folder = platform.settings.serving_directory / SOLUTION
    assert linked_bundle(folder, champion_link(SEGMENT)) == folder / str(version)
    unchanged = platform.registry.champion(SOLUTION)
    assert unchanged is not None
    assert unchanged.version == champion.version


def test_a_prediction_of_a_segment_is_traced_and_explained(platform: Platform, champion: RegisteredModel, version: int) -> None:
    prediction = str(
        platform.value(f"SELECT prediction_id FROM {SOLUTION}.predictions WHERE model_version = {version} ORDER BY 1 LIMIT 1")
    )
    traced = json.loads(platform.mlops("trace", prediction, "--json").stdout)
    assert traced["model_version"]["tags"]["segment"] == traced["deployment"]["segment"] == SEGMENT
    assert traced["deployment"]["version"] == version
    assert traced["dataset"]["fingerprint"] == champion.tags["dataset_fingerprint"]
    explained = json.loads(platform.mlops("explain", prediction, "--json").stdout)
    # Every row that it is compared with is of the segment too.
    assert [each["contribution"] for each in explained["contributions"] if each["feature"] == "origin"] == [0.0]


def test_rolled_back_its_rows_go_to_the_solutions_model_and_back_again(
    platform: Platform, champion: RegisteredModel, version: int
) -> None:
    done = platform.mlops("rollback", SOLUTION, "--segment", SEGMENT, "--reason", "complaints")
    assert done.returncode == 0, done.stderr
    assert segment_links(FolderStore(platform.settings.serving_directory).of(SOLUTION).aliases()) == []
    assert versions_by_origin(platform)[SEGMENT] == {champion.version}
    again = platform.mlops("rollback", SOLUTION, "--segment", SEGMENT, "--reason", "it was something else")
    assert again.returncode == 0, again.stderr
    history = json.loads(platform.mlops("history", SOLUTION, "--segment", SEGMENT, "--json").stdout)
    assert [each["version"] for each in history] == [version, champion.version, version]
    assert {each["segment"] for each in history} == {SEGMENT}
    assert all(each["segment"] is None for each in json.loads(platform.mlops("history", SOLUTION, "--json").stdout))


def test_what_is_not_there_is_a_message(platform: Platform, version: int) -> None:
    for arguments, message in (
        (("history", "employment", "--segment", "x"), "employment has no models by segment."),
        (("promote", SOLUTION, "--segment", "EWR", "--to", str(version), "--reason", "x"), f"for the segment {SEGMENT} alone"),
        (("train", SOLUTION, "--segment", "XXX"), "is no partition of flight_delay/segment_model"),
    ):
        done = platform.mlops(*arguments)
        assert done.returncode == 1
        assert message in done.stderr
