"""A version of staging that is copied to prod: two lakes, two registries, two state folders. Prod decides, and staging stays as it is."""

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import inprocess
import pytest
from clinic_chain import STAGES, Clinic, Registry, training_assets, visits
from registry_database import new_registry_url

from mlops_assets.access.credentials import access_token
from mlops_assets.access.launchers import IDENTIFIED_BY_TAG, LAUNCHED_BY_TAG, SIGN_IN
from mlops_assets.clients.bundle_record import accepted_record
from mlops_assets.clients.registered_model import COPIED_FROM_TAG, ENVIRONMENT_TAG, ORIGIN_TAG, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core import environment_files
from mlops_assets.core.errors import StackError
from mlops_assets.core.other_environments import other_settings
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.deployment import load_champions
from mlops_assets.lake.lake import Lake
from mlops_assets.schema.deployment_section import Deployment
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.contract import DerivedFeature, FeatureView
from mlops_assets.stages.refusal import REFUSED_METADATA
from mlops_assets.training.copied_contract import differences
from mlops_assets.training.copied_version import read_original

pytestmark = pytest.mark.long

MADE_FOR, OWN, LATER = "2020-02-10", "2020-02-12", "2020-02-20"
"""For what staging trained, for what prod did, and a date after both."""
ANNA = {LAUNCHED_BY_TAG: "anna", IDENTIFIED_BY_TAG: SIGN_IN}


@dataclass(frozen=True)
class Environments:
    """Staging with a champion, prod with one of its own, and the folder that holds all of staging."""

    staging: Clinic
    prod: Clinic
    folder: Path
    original: RegisteredModel
    champion: RegisteredModel

    def copy(self, day: str, *, clinic: Clinic | None = None, version: int | None = None) -> Any:
        """Run the training stages of prod for `day` with a copy of the version of staging."""
        return (clinic or self.prod).run(day, *STAGES, copy_from="staging", copy_version=version or self.original.version)

    @property
    def predicts(self) -> int:
        champion = self.prod.registry.champion(self.prod.name)
        assert champion is not None
        return champion.version

    @property
    def fingerprint(self) -> dict[str, str]:
        """The content of every file of staging: its registry, artifacts, key and state folder."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def environments(make_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    root = tmp_path_factory.mktemp("environments")
    (root / "deployments").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        project = replace(current_project(), root=root)
        patched.setattr(environment_files, "current_project", lambda: project)
        clinics = {}
        for name in ("staging", "prod"):
            folder = root / name
            (folder / "home").mkdir(parents=True)
            settings = Settings(home=folder / "home", mlflow_server=new_registry_url(folder))
            (settings.home / "environment").write_text(f"{name}\n")
            access_token(settings)
            (root / "deployments" / f"{name}.env").write_text(f"MLOPS_HOME={name}/home\nMLOPS_MLFLOW_URL={settings.mlflow_url}\n")
            # The artifacts of a database without a server lie in the current folder.
            patched.chdir(folder)
            patched.setenv("MLOPS_ENV", name)
            registry = Registry(settings.mlflow_url, "", Signer(settings.signing_key_file))
            clinics[name] = Clinic("binary_classification", make_lake(), registry, settings)
            clinics[name].train(MADE_FOR if name == "staging" else OWN)
        staging, prod = clinics["staging"], clinics["prod"]
        original, champion = (clinic.registry.champion(clinic.name) for clinic in (staging, prod))
        assert original is not None
        assert champion is not None
        yield Environments(staging, prod, root / "staging", original, champion)


def test_a_version_is_copied_judged_on_prods_data_approved_and_rolled_back(environments: Environments) -> None:
    prod, before = environments.prod, environments.fingerprint
    asking = prod.declaring(deployment=Deployment(approval="required"))
    result = environments.copy(OWN, clinic=asking)
    assert result.success, inprocess.failures(result)
    made = {event.asset_key.path[-1]: event.materialization.metadata for event in result.get_asset_materialization_events()}
    assert list(made) == ["training_dataset", "model", "evaluation"]
    version = int(made["model"]["model_version"].value)  # type: ignore[arg-type]
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    # Compared on the hold-out of prod, with the champion of prod as it was before it had seen those rows.
    assert checks["against_champion"].metadata["champion"].value == environments.champion.version
    assert checks["against_champion"].metadata["compared"].value is True
    assert checks["onnx_parity"].metadata["rows"].value == checks["against_champion"].metadata["rows"].value == 350
    assert checks["onnx_parity"].passed
    assert checks["approval"].metadata["decision"].value == "waits"
    assert environments.predicts == environments.champion.version
    copied = prod.registry.get(prod.name, version)
    record, _ = accepted_record(prod.registry.signer, copied)
    name = f"staging version {environments.original.version}"
    assert record.training.copied_from == copied.tags[COPIED_FROM_TAG] == name
    assert copied.tags[ENVIRONMENT_TAG] == "staging"
    there = environments.staging.registry.registered_record(environments.original)
    origin = json.loads(copied.tags[ORIGIN_TAG])
    assert (origin["training_date"], origin["bundle_sha256"]) == (MADE_FOR, there.sha256)
    assert origin["dataset_fingerprint"] == there.training.dataset_fingerprint != record.training.dataset_fingerprint
    artifacts = {file.path for file in prod.registry.client.list_artifacts(copied.run_id, "origin")}
    assert artifacts == {"origin/model_card.md", "origin/evaluation.json"}
    decided = asking.materialize(
        OWN,
        ["deployment"],
        {"ops": {f"{prod.name}__deployment": {"config": {"approve": True, "reason": "read both cards"}}}},
        ANNA,
    )
    assert decided.success, inprocess.failures(decided)
    [deployed] = decided.get_asset_materialization_events()
    assert deployed.materialization.metadata[COPIED_FROM_TAG].value == name
    [predicting] = load_champions(prod.instance, prod.registry, prod.settings, asking.inputs).bundles
    assert predicting.contract.version == version == environments.predicts
    [serving] = load_champions(
        environments.staging.instance, environments.staging.registry, environments.staging.settings, environments.staging.inputs
    ).bundles
    assert predicting.contract.model_sha256 == serving.contract.model_sha256
    # The same again is the same version; and it is left as any other is.
    again = environments.copy(OWN)
    [model] = [event for event in again.get_asset_materialization_events() if event.asset_key.path[-1] == "model"]
    assert (model.materialization.metadata["model_version"].value, model.materialization.metadata["reused"].value) == (
        version,
        True,
    )
    back = prod.materialize(
        OWN, ["deployment"], {"ops": {f"{prod.name}__deployment": {"config": {"version": environments.champion.version}}}}
    )
    assert back.success, inprocess.failures(back)
    assert environments.predicts == environments.champion.version
    assert environments.fingerprint == before


def test_the_gates_of_prod_refuse_it_by_name(environments: Environments) -> None:
    before = environments.predicts
    result = environments.copy(LATER, clinic=environments.prod.under(floor={"accuracy": 0.999}))
    assert result.success, inprocess.failures(result)
    assert inprocess.failed_checks(result) == {(f"{environments.prod.name}/evaluation", "floor")}
    made = {event.asset_key.path[-1]: event.materialization.metadata for event in result.get_asset_materialization_events()}
    assert str(made["evaluation"][REFUSED_METADATA].value).startswith("floor: accuracy 0.")
    assert "deployment" not in made
    assert environments.predicts == before


def test_a_bundle_that_was_changed_in_staging_is_refused(environments: Environments) -> None:
    versions = len(environments.prod.registry.every_version(environments.prod.name))
    stored = [path for path in environments.folder.rglob("model.onnx") if environments.original.run_id in str(path)]
    good = {path: path.read_bytes() for path in stored if "bundle" in path.parts}
    assert good
    try:
        for path, content in good.items():
            path.write_bytes(content + b"x")
        result = environments.copy("2020-02-14")
        assert not result.success
        assert "was changed after promotion: the SHA-256 is not the one of the signed record" in inprocess.failures(result)[0]
    finally:
        for path, content in good.items():
            path.write_bytes(content)
    staging, original = environments.staging, environments.original
    tag = {"acceptance_signature": "0" * 64}
    staging.registry.tag(staging.name, original.version, tag)
    try:
        with pytest.raises(StackError, match="In staging: Version 1 of clinic_binary has not passed its gates"):
            read_original("staging", staging.name, original.version, None)
    finally:
        staging.registry.tag(staging.name, original.version, {name: original.tags[name] for name in tag})
    assert len(environments.prod.registry.every_version(environments.prod.name)) == versions


def test_a_model_that_reads_something_else_or_has_seen_the_hold_out_is_refused(environments: Environments) -> None:
    prod = environments.prod
    early = environments.copy("2020-02-08")
    assert f"it was trained for {MADE_FOR}, and has seen rows of the hold-out of 2020-02-08" in inprocess.failures(early)[0]
    longer = prod.declaring(training=prod.inputs.solution.training.model_copy(update={"holdout": "10d"}))
    assert "all but the last 7d, and 10d are held out here" in inprocess.failures(environments.copy(MADE_FOR, clinic=longer))[0]
    contract = prod.bundle(environments.champion).contract
    rows = prod.query("SELECT age FROM {name}.visits LIMIT 0")
    assert differences(contract, prod.inputs, rows) == []
    view = FeatureView(name="weather", version=2, entity=("id",), features=("age",), online=True)
    other = contract.model_copy(
        update={
            "feature_views": (view,),
            "derived_features": (DerivedFeature(name="old", expression="age > 80"),),
            "features": (contract.features[0].model_copy(update={"type": "int64"}),),
            "time_zone": "Europe/Berlin",
        }
    )
    assert differences(other, prod.inputs, rows) == [
        "it reads the feature view weather, which is not used here",
        "old is age > 80 there, and nothing here",
        "age is int64 there, and double here",
        "the time zone is Europe/Berlin there, and UTC here",
    ]


def test_an_environment_that_cannot_be_read_is_a_message(environments: Environments) -> None:
    name = environments.prod.name
    # Its file alone counts, and no variable of this process.
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLOPS_HOME", str(environments.prod.settings.home))
        assert other_settings("staging") == environments.staging.settings
    with pytest.raises(StackError, match="prod is the environment of this process"):
        read_original("prod", name, None, None)
    with pytest.raises(StackError, match=r"There is no test\.env in"):
        read_original("test", name, None, None)
    with pytest.raises(StackError, match="In staging: clinic_binary has no version 99"):
        read_original("staging", name, 99, None)
    assert read_original("staging", name, None, None).record.training.training_date == date.fromisoformat(MADE_FOR)
    owner = environments.staging.settings.home / "environment"
    owner.write_text("other\n")
    try:
        with pytest.raises(StackError, match="is of the environment other, not of staging"):
            read_original("staging", name, None, None)
        owner.unlink()
        with pytest.raises(StackError, match="The state folder of staging cannot be read"):
            read_original("staging", name, None, None)
    finally:
        owner.write_text("staging\n")
    key = environments.staging.settings.signing_key_file
    key.rename(key.with_suffix(".away"))
    try:
        with pytest.raises(StackError, match=r"staging has no .*signing_key"):
            read_original("staging", name, None, None)
        assert not key.exists()
    finally:
        key.with_suffix(".away").rename(key)


def by_ward(clinic: Clinic) -> tuple[Clinic, Clinic]:
    """The same clinic whose visits have a ward, and that of the models of wards."""
    query = f"SELECT *, CASE WHEN hash(id) % 2 = 0 THEN 'north' ELSE 'south' END AS ward FROM ({visits('binary_classification')})"
    with clinic.lake.connect(read_only=False) as connection:
        clinic.lake.replace(connection, table=f"{clinic.name}.visits", query=query, partition_range=None, author="test")
    attributes = clinic.inputs.solution.model_dump(mode="json", exclude_unset=True)
    attributes |= {"features": [{"request": ["age", "ward"]}], "segments": {"column": "ward", "values": ["north"]}}
    whole, wards = copy(clinic), copy(clinic)
    spine = replace(clinic.inputs.spine, columns={**clinic.inputs.spine.columns, "ward": "varchar"})
    whole.inputs = replace(clinic.inputs, solution=Solution.model_validate(attributes), spine=spine, request=("age", "ward"))
    wards.inputs = replace(whole.inputs, by_segment=True)
    whole.assets = training_assets(whole.inputs)
    # The dataset is that of all rows.
    wards.assets = [*whole.assets[:1], *training_assets(wards.inputs)[1:]]
    return whole, wards


def test_a_model_of_a_segment_is_copied_to_its_segment(environments: Environments) -> None:
    versions = {}
    for clinic, day, configuration in (
        (environments.staging, MADE_FOR, {}),
        (environments.prod, OWN, {"copy_from": "staging"}),
    ):
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("MLOPS_ENV", "staging" if clinic is environments.staging else "prod")
            whole, wards = by_ward(clinic)
            dataset = whole.run(day, "training_dataset")
            assert dataset.success, inprocess.failures(dataset)
            result = wards.materialize(
                dg.MultiPartitionKey({"segment": "north", "training_date": day}),
                ("segment_model", "segment_evaluation", "segment_deployment"),
                {"ops": {f"{clinic.name}__segment_model": {"config": configuration}}},
            )
        assert result.success, inprocess.failures(result)
        assert inprocess.failed_checks(result) == set()
        versions[clinic] = clinic.registry.champion(clinic.name, "north")
    original, copied = versions.values()
    assert original is not None
    assert copied is not None
    record, _ = accepted_record(environments.prod.registry.signer, copied)
    assert (record.training.copied_from, record.training.segment) == (f"staging version {original.version}", "north")
    contracts = [clinic.bundle(model).contract for clinic, model in versions.items() if model is not None]
    assert [contract.segment and contract.segment.value for contract in contracts] == ["north", "north"]
    assert contracts[0].model_sha256 == contracts[1].model_sha256
    assert environments.prod.registry.champion(environments.prod.name) == environments.champion
    with pytest.raises(StackError, match="is a model of the segment north"):
        read_original("staging", environments.staging.name, original.version, None)


def test_a_recalibrated_version_is_refused_with_the_one_to_copy(environments: Environments) -> None:
    staging, fitted = environments.staging, environments.original.version
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLOPS_ENV", "staging")
        recalibrated = staging.train("2020-03-15", recalibrate=fitted)
    # It predicts there, so that it is what a promotion without a version names.
    assert staging.registry.champion(staging.name) == recalibrated
    for version in (None, recalibrated.version):
        with pytest.raises(StackError, match=f"in staging is version {fitted}, recalibrated on the rows there") as refused:
            read_original("staging", staging.name, version, None)
        assert refused.value.remedy.startswith(f"Copy what was fitted, --version {fitted}, and recalibrate it here")
    assert read_original("staging", staging.name, fitted, None).model.version == fitted
