"""What is in production, and what a prediction rests on: promotion, rollback, history, an alias moved by hand, trace and explain."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import dagster as dg
import inprocess
import pytest
from running_stack import Demo, Platform
from waiting import wait_for

from mlops_assets.access.launchers import LAUNCHED_BY_TAG, system_user
from mlops_assets.core.errors import StackError
from mlops_assets.deployment.served_version import ServedSolution, observe
from mlops_assets.deployment.switch_journal import SWITCH, SWITCH_TAG, SWITCHED_AT
from mlops_assets.local.environment_owner import claim_stores
from mlops_assets.serving.active import CHAMPION_LINK, linked_bundle

SOLUTION = "flight_delay"
TRAINING = tuple(f"{SOLUTION}/{stage}" for stage in ("training_dataset", "model", "evaluation", "online_features", "deployment"))
TRAINING_DATE = "2013-02-10"


def history(platform: Platform) -> list[dict[str, Any]]:
    done = platform.mlops("history", SOLUTION, "--json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def live(platform: Platform) -> tuple[int, int, int]:
    """The version that predicts, as the history, the registry and the serving folder have it."""
    champion = platform.registry.champion(SOLUTION)
    folder = linked_bundle(platform.settings.serving_directory / SOLUTION, CHAMPION_LINK)
    assert champion is not None
    assert folder is not None
    return history(platform)[0]["version"], champion.version, int(folder.name)


@pytest.fixture(scope="module")
def versions(platform: Platform, demo: Demo) -> Iterator[tuple[int, int]]:
    """The demo's version and a newer one that was promoted after it; in the end the demo's predicts again."""
    first = int(demo.summary["version"])
    platform.materialize(TRAINING, TRAINING_DATE, TRAINING_DATE)
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    assert champion.version > first
    yield first, champion.version
    platform.mlops("rollback", SOLUTION, "--to", str(first), "--reason", "end of the tests")


def test_a_promotion_stands_in_the_history(platform: Platform, versions: tuple[int, int]) -> None:
    first, second = versions
    newest, before = history(platform)[:2]
    assert (newest["version"], newest["version_before"], newest["until"]) == (second, first, None)
    assert (newest["training_date"], newest["actor"], newest["gates"]) == (TRAINING_DATE, "dagster", "accepted")
    assert (before["version"], before["until"]) == (first, newest["since"])
    previous = platform.registry.by_alias(SOLUTION, "previous")
    assert previous is not None
    assert previous.version == first


def test_a_rollback_takes_effect_at_once_and_can_be_rolled_back(platform: Platform, versions: tuple[int, int]) -> None:
    first, second = versions
    done = platform.mlops("rollback", SOLUTION, "--reason", "complaints since Monday")
    assert done.returncode == 0, done.stderr
    assert f"Version {first} of {SOLUTION} predicts now, after version {second}." in done.stdout
    assert live(platform) == (first, first, first)
    assert history(platform)[0]["reason"] == "complaints since Monday"
    # A run records what the command did before it launched that run.
    [recorded] = platform.client.materializations(f"{SOLUTION}/deployment", 1)
    assert platform.client.runs_with_tag(SWITCH_TAG, recorded.metadata[SWITCH]) == [recorded.run_id]
    assert history(platform)[0]["since"] == str(datetime.fromisoformat(recorded.metadata[SWITCHED_AT]))
    assert datetime.fromisoformat(recorded.metadata[SWITCHED_AT]) < recorded.at
    again = platform.mlops("rollback", SOLUTION, "--reason", "it was something else")
    assert again.returncode == 0, again.stderr
    assert live(platform) == (second, second, second)


def test_deploying_what_is_deployed_changes_nothing(platform: Platform, versions: tuple[int, int]) -> None:
    before = history(platform)
    done = platform.mlops("promote", SOLUTION, "--to", str(before[0]["version"]), "--reason", "again")
    assert done.returncode == 0, done.stderr
    assert history(platform) == before


def test_a_version_that_does_not_exist_is_a_message(platform: Platform, versions: tuple[int, int]) -> None:
    done = platform.mlops("promote", SOLUTION, "--to", "999", "--reason", "x")
    assert done.returncode == 1
    assert f"{SOLUTION} has no version 999 in the model registry." in done.stderr
    assert f"mlops history {SOLUTION}" in done.stderr
    for command in (("history", "nothing"), ("promote", "nothing", "--reason", "x"), ("rollback", "nothing", "--reason", "x")):
        unknown = platform.mlops(*command)
        assert unknown.returncode == 1
        assert "There is no solution 'nothing'." in unknown.stderr


def test_a_run_names_the_person_who_launched_it(platform: Platform, versions: tuple[int, int]) -> None:
    version = live(platform)[0]
    token = json.loads(platform.mlops("access", "add", "carla", "--role", "operator", "--json").stdout)["token"]
    # The client names the user of the system, as commands do: only the owner's token vouches for that.
    client = replace(platform.client, token=token)
    asset = client.assets((f"{SOLUTION}/deployment",))[f"{SOLUTION}/deployment"]
    partition = platform.registry.get(SOLUTION, version).tags["training_date"]
    run_id = client.launch([asset], partition, partition, {asset.key: {"version": version}}, purpose="test")
    wait_for(lambda: client.run(run_id).finished, every=1)
    assert client.runs_with_tag(LAUNCHED_BY_TAG, "carla") == [run_id]
    assert run_id not in client.runs_with_tag(LAUNCHED_BY_TAG, system_user())
    assert client.runs_with_tag(LAUNCHED_BY_TAG, system_user())


def test_a_version_that_predicted_waits_for_nobody(platform: Platform, versions: tuple[int, int]) -> None:
    before = history(platform)
    assert json.loads(platform.mlops("approvals", "--json").stdout) == []
    assert platform.mlops("approvals", "--all").stdout.strip() == "Nothing was ever asked."
    for command in ("approve", "refuse"):
        done = platform.mlops(command, SOLUTION, "--version", str(before[0]["version"]), "--reason", "x")
        assert done.returncode == 1
        assert f"predicted before, and waits for nobody: mlops rollback {SOLUTION}" in done.stderr
    unknown = platform.mlops("approve", SOLUTION, "--version", "999", "--reason", "x")
    assert f"{SOLUTION} has no version 999 in the model registry." in unknown.stderr
    assert history(platform) == before
    assert json.loads(platform.mlops("status", "--json").stdout)["solutions"][SOLUTION]["waits_for_approval"] == []


def test_an_alias_moved_by_hand_is_recorded(platform: Platform, versions: tuple[int, int]) -> None:
    first, second = versions
    assert live(platform) == (second, second, second)
    platform.registry.set_alias(SOLUTION, "champion", first)
    wait_for(lambda: history(platform)[0]["version"] == first, every=1)
    newest = history(platform)[0]
    assert (newest["actor"], newest["reason"]) == ("mlflow", f"the alias champion was moved by hand from version {second}")
    assert live(platform) == (first, first, first)


@pytest.mark.long
def test_an_alias_moved_by_hand_to_a_refused_version_is_moved_back(platform: Platform, versions: tuple[int, int]) -> None:
    first, second = versions
    platform.registry.tag(SOLUTION, second, {"status": "rejected"})
    try:
        platform.registry.set_alias(SOLUTION, "champion", second)
        wait_for(lambda: live(platform)[1] == first, every=1)
    finally:
        platform.registry.tag(SOLUTION, second, {"status": "accepted"})
    assert live(platform) == (first, first, first)


def test_an_altered_bundle_is_refused_until_it_is_fetched_again(platform: Platform, versions: tuple[int, int]) -> None:
    first, second = versions
    assert live(platform) == (first, first, first)
    folder = platform.settings.serving_directory / SOLUTION / str(second)
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes() + b"x")
    refused = platform.mlops("promote", SOLUTION, "--to", str(second), "--reason", "newer")
    assert refused.returncode == 1
    assert f"{model} was changed after promotion" in refused.stderr
    assert f"The champion stays. {model} " in refused.stderr
    assert f"Remove {folder} to have the bundle fetched from the model registry again" in refused.stderr
    assert live(platform) == (first, first, first)
    shutil.rmtree(folder)
    assert platform.mlops("promote", SOLUTION, "--to", str(second), "--reason", "newer").returncode == 0
    assert live(platform) == (second, second, second)


@pytest.mark.long
def test_a_version_whose_tags_were_written_by_hand_is_not_promoted(platform: Platform, versions: tuple[int, int]) -> None:
    before, client = live(platform), platform.registry.client
    accepted = platform.registry.get(SOLUTION, before[1])
    forged = int(client.create_model_version(SOLUTION, f"runs:/{accepted.run_id}/model", run_id=accepted.run_id).version)
    try:
        for name, value in accepted.tags.items():
            client.set_model_version_tag(SOLUTION, str(forged), name, value)
        done = platform.mlops("promote", SOLUTION, "--to", str(forged), "--reason", "forged")
        assert done.returncode == 1
        assert f"Version {forged} of {SOLUTION} was changed in MLflow after it was registered" in done.stderr
        platform.registry.set_alias(SOLUTION, "champion", forged)
        refused = inprocess.failures(predict(platform))
        assert f"Version {forged} of {SOLUTION} was changed in MLflow after it was registered" in refused[0]
        wait_for(lambda: live(platform) == before, every=1)
    finally:
        client.delete_model_version(SOLUTION, str(forged))


def predict(platform: Platform) -> dg.ExecuteInProcessResult:
    """One day of batch predictions."""
    [asset] = [each for each in inprocess.load_assets(SOLUTION) if dg.AssetKey([SOLUTION, "predictions"]) in each.keys]
    return inprocess.materialize(
        [asset], [f"{SOLUTION}/predictions"], first="2013-02-28", last="2013-02-28", resources=platform.resources
    )


def test_a_champion_whose_contract_was_changed_predicts_nowhere_anew(platform: Platform, versions: tuple[int, int]) -> None:
    version = live(platform)[0]
    contract = platform.settings.serving_directory / SOLUTION / str(version) / "contract.json"
    good = contract.read_bytes()
    changed = json.loads(good) | {"decision_threshold": 0.99}
    contract.write_text(json.dumps(changed, indent=2))
    try:
        result = predict(platform)
        assert not result.success
        [message] = inprocess.failures(result)
        assert f"{contract} was changed after promotion" in message
        assert f"Remove {contract.parent} to have the bundle fetched from the model registry again" in message
        # A server that runs keeps what it loaded.
        served = observe(platform.settings, SOLUTION, ServedSolution([], ["online"]))
        assert {process.version for process in served.processes} == {version}
        assert served.faults == []
    finally:
        contract.write_bytes(good)
    assert predict(platform).success


@pytest.mark.parametrize(
    "name",
    [pytest.param("contract.json", marks=pytest.mark.long), "model.onnx", pytest.param("sample.json", marks=pytest.mark.long)],
)
def test_a_bundle_that_was_replaced_in_the_registry_is_refused(platform: Platform, versions: tuple[int, int], name: str) -> None:
    first, second = versions
    before = live(platform)
    other = first if before[0] == second else second
    run_id = platform.registry.get(SOLUTION, other).run_id
    [stored] = platform.settings.mlflow_artifact_directory.glob(f"*/{run_id}/artifacts/bundle/{name}")
    folder, good = platform.settings.serving_directory / SOLUTION / str(other), stored.read_bytes()
    shutil.rmtree(folder, ignore_errors=True)
    stored.write_bytes(good.replace(b"0", b"1", 1))
    try:
        done = platform.mlops("promote", SOLUTION, "--to", str(other), "--reason", "replaced")
        assert done.returncode == 1
        assert f"{folder / name} was changed after promotion" in done.stderr
        assert live(platform) == before
    finally:
        stored.write_bytes(good)
        shutil.rmtree(folder)


@pytest.mark.long
def test_versions_are_signed_again_when_the_key_is_lost(platform: Platform, versions: tuple[int, int]) -> None:
    version = live(platform)[0]
    record = platform.settings.serving_directory / SOLUTION / f"{version}.json"
    record.unlink()
    platform.settings.signing_key_file.unlink()
    assert platform.mlops("up").returncode == 0
    assert record.exists()
    for each in versions:
        assert platform.registry.accepted_record(platform.registry.get(SOLUTION, each))
    done = platform.mlops("promote", SOLUTION, "--to", str(version), "--reason", "after the loss of the key")
    assert done.returncode == 0, done.stderr
    assert predict(platform).success


@pytest.fixture(scope="module")
def prediction(platform: Platform, versions: tuple[int, int]) -> str:
    """The id of the surest prediction of the demo."""
    return str(platform.value(f"SELECT prediction_id FROM {SOLUTION}.predictions ORDER BY score DESC, prediction_id LIMIT 1"))


def test_a_prediction_is_traced_to_the_raw_partitions(platform: Platform, demo: Demo, prediction: str) -> None:
    done = platform.mlops("trace", prediction, "--json")
    assert done.returncode == 0, done.stderr
    traced = json.loads(done.stdout)
    assert list(traced) == [
        "prediction",
        "deployment",
        "model_version",
        "training_run",
        "dataset",
        "feature_views",
        "raw_partitions",
    ]
    assert traced["prediction"]["prediction_id"] == prediction
    assert traced["deployment"]["version"] == traced["model_version"]["version"] == demo.summary["version"]
    datasets = json.loads(platform.mlops("dataset", "list", SOLUTION, "--json").stdout)
    assert traced["dataset"]["fingerprint"] in {each["fingerprint"] for each in datasets}
    assert {view["view"]: view["version"] for view in traced["feature_views"]} == json.loads(
        traced["prediction"]["feature_views"]
    )
    assert all(
        view["values_from"] < traced["prediction"]["predicted_at"] for view in traced["feature_views"] if view["values_from"]
    )
    day, snapshot = traced["prediction"]["partition"], traced["prediction"]["_source_snapshot"]
    assert {view["snapshot"] for view in traced["feature_views"]} == {snapshot}
    assert all(view["partition"] <= day for view in traced["feature_views"] if view["values_from"])
    [flights] = [table for table in traced["raw_partitions"] if table["table"] == "raw.flights"]
    assert flights["training"] == ["2013-01-01 to 2013-01-31"]
    # The row's own day, and those that the rolling features of the values look back to.
    assert flights["prediction"][-1].endswith(f" to {day}")
    assert flights["snapshots"] == [snapshot]
    # The addresses lead to pages that exist.
    assert platform.client.run(traced["training_run"]["dagster"].rpartition("/")[2]).status == "SUCCESS"
    assert platform.registry.client.get_run(traced["training_run"]["mlflow_run_id"]).info.status == "FINISHED"
    assert prediction in platform.mlops("trace", prediction).stdout


def test_a_prediction_is_explained_by_the_values_it_was_made_from(platform: Platform, prediction: str) -> None:
    done = platform.mlops("explain", prediction, "--json")
    assert done.returncode == 0, done.stderr
    explained = json.loads(done.stdout)
    stored = platform.value(f"SELECT score FROM {SOLUTION}.predictions WHERE prediction_id = '{prediction}'")
    assert explained["prediction"] == pytest.approx(stored, abs=1e-6)
    total = explained["base"] + sum(each["contribution"] for each in explained["contributions"])
    assert total == pytest.approx(explained["prediction"], abs=1e-5)
    first = explained["contributions"][0]
    value = platform.value(f"SELECT {first['feature']} FROM {SOLUTION}.predictions WHERE prediction_id = '{prediction}'")
    assert first["value"] == value
    again = platform.mlops("explain", prediction)
    assert again.returncode == 0, again.stderr
    assert first["feature"] in again.stdout


def test_a_prediction_that_is_not_there_is_a_message(platform: Platform, prediction: str) -> None:
    for wrong in (f"{SOLUTION}:x:1", "nothing"):
        done = platform.mlops("trace", wrong)
        assert done.returncode == 1
        assert wrong in done.stderr


def test_an_mlflow_elsewhere_is_of_one_environment(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(platform.settings, mlflow_server=platform.settings.mlflow_url)
    monkeypatch.setenv("MLOPS_ENV", "prod")
    try:
        for _ in range(2):
            claim_stores(settings)
        monkeypatch.setenv("MLOPS_ENV", "dev")
        with pytest.raises(
            StackError, match="The MLflow of MLOPS_MLFLOW_URL is of the environment prod, and this process is of dev"
        ):
            claim_stores(settings)
    finally:
        platform.registry.client.delete_experiment_tag("0", "mlops_environment")
