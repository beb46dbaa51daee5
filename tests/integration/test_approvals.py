"""Versions that wait for a person before they predict, on a real lake and a real registry: who approves, who may not, what does not wait."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import inprocess
import pytest
from clinic_chain import STAGES, Clinic, Registry
from registry_database import new_registry_url

from mlops_assets.access.launchers import IDENTIFIED_BY_TAG, LAUNCHED_BY_TAG, SIGN_IN, SYSTEM_USER
from mlops_assets.clients.approvals import ApprovalEntry, read_approvals, waiting_versions
from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.deployment.approval import APPROVAL
from mlops_assets.deployment.deployment import load_champions
from mlops_assets.lake.lake import Lake
from mlops_assets.monitoring.notifications import check_notifications
from mlops_assets.operations.solutions import solution_states
from mlops_assets.schema.deployment_section import Approval, Deployment

pytestmark = pytest.mark.long

FIRST, SECOND, THIRD = "2020-02-10", "2020-02-18", "2020-02-26"
ANNA = {LAUNCHED_BY_TAG: "anna", IDENTIFIED_BY_TAG: SIGN_IN}
BERT = {LAUNCHED_BY_TAG: "bert", IDENTIFIED_BY_TAG: SYSTEM_USER}
OWNER = {LAUNCHED_BY_TAG: "owner", IDENTIFIED_BY_TAG: SIGN_IN}
TOLERANT = {"against_champion": {"log_loss": 10.0}}


class Ward(Clinic):
    """A clinic whose versions wait for a person, as `policy` says."""

    def wanting(self, policy: Approval) -> "Ward":
        ward = self.declaring(deployment=Deployment(approval=policy))
        assert isinstance(ward, Ward)
        return ward

    def train_only(self, day: str, *, tags: Mapping[str, str] | None = None) -> int:
        """All stages for `day`; the version that they made, whoever predicts."""
        result = self.materialize(day, STAGES, tags=tags)
        assert result.success, inprocess.failures(result)
        return max(model.version for model in self.registry.every_version(self.name))

    def decide(self, day: str, tags: Mapping[str, str], **config: Any) -> dg.ExecuteInProcessResult:
        return self.materialize(day, ["deployment"], {"ops": {f"{self.name}__deployment": {"config": config}}}, tags)

    @property
    def predicts(self) -> int | None:
        champion = self.registry.champion(self.name)
        return champion.version if champion else None

    @property
    def entries(self) -> list[ApprovalEntry]:
        return read_approvals(self.settings.approvals_file, Signer(self.settings.signing_key_file))

    @property
    def waiting(self) -> list[int]:
        return [entry.version for entry in waiting_versions(self.entries)]


@pytest.fixture
def ward(make_lake: Callable[[], Lake], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """A ward that has a first version in production, which nobody had to approve."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=tmp_path / "home")
    settings.home.mkdir()
    registry = Registry(new_registry_url(tmp_path), "", Signer(settings.signing_key_file))
    ward = Ward("binary_classification", make_lake(), registry, settings)
    ward.train(FIRST)
    changed = ward.under(**TOLERANT)
    assert isinstance(changed, Ward)
    return changed


def approval_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    [check] = [check for check in result.get_asset_check_evaluations() if check.check_name == APPROVAL.name]
    return check


def test_an_automatic_training_waits_until_a_person_approves_it_and_a_rollback_waits_for_nobody(ward: Ward) -> None:
    before = ward.predicts
    asking = ward.wanting("required")
    # By a sensor: no person launched it.
    result = asking.materialize(SECOND, STAGES)
    assert result.success, inprocess.failures(result)
    check = approval_of(result)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    version = check.metadata["model_version"].value
    assert (check.metadata["decision"].value, check.metadata["policy"].value) == ("waits", "required")
    assert f"mlops approve {ward.name} --version {version}" in str(check.description)
    assert "deployment" not in {key.rpartition("/")[2] for key in inprocess.materialized(result)}
    assert (asking.predicts, asking.waiting) == (before, [version])
    # What a person hears and sees of it.
    [notice] = check_notifications(asking.settings, {}, [(result.run_id, check)])
    assert (notice.event, notice.title) == ("waits_for_approval", f"{ward.name}: version {version} waits for approval")
    # The next automatic run of the same date asks nothing again.
    assert asking.materialize(SECOND, ["deployment"]).success
    assert len(asking.entries) == 1
    # Nobody launched this one, whatever name it gives.
    nobody = asking.decide(SECOND, {}, approve=True, actor="anna", reason="x")
    assert "No person is known to have launched this run" in inprocess.failures(nobody)[0]
    approved = asking.decide(SECOND, ANNA, approve=True, reason="read its card")
    assert approved.success, inprocess.failures(approved)
    assert approval_of(approved).passed
    assert (asking.predicts, asking.waiting) == (version, [])
    [deployed] = approved.get_asset_materialization_events()
    assert deployed.materialization.metadata["approved_by"].value == "anna"
    assert [(entry.step, entry.by, entry.identified_by, entry.reason) for entry in asking.entries] == [
        ("asked", "dagster", "", "the candidate passed its gates"),
        ("approved", "anna", "sign-in", "read its card"),
    ]
    [predicting] = load_champions(asking.instance, asking.registry, asking.settings, asking.inputs).bundles
    assert predicting.contract.version == version
    # Both predicted before.
    for day, expected in ((FIRST, before), (SECOND, version)):
        back = asking.decide(day, {}, version=expected, reason="complaints")
        assert back.success, inprocess.failures(back)
        assert (approval_of(back).passed, asking.predicts) == (True, expected)
    assert len(asking.entries) == 2


def test_four_eyes_are_those_of_another_person(ward: Ward) -> None:
    asking = ward.wanting("four_eyes")
    version = asking.train_only(SECOND, tags=ANNA)
    before = asking.predicts
    for tags, because in (
        (ANNA, "anna asked for it, and another person has to approve it"),
        (OWNER, "the owner's link names nobody"),
    ):
        refused = asking.decide(SECOND, tags, approve=True, reason="fine")
        assert because in inprocess.failures(refused)[0]
        assert asking.predicts == before
    # Bert asks too, and is no second person any more.
    assert asking.decide(SECOND, BERT, reason="I need it").success
    assert "bert asked for it" in inprocess.failures(asking.decide(SECOND, BERT, approve=True, reason="fine"))[0]
    carla = {**BERT, LAUNCHED_BY_TAG: "carla"}
    assert asking.decide(SECOND, carla, approve=True, reason="read its card").success
    assert (asking.predicts, asking.waiting) == (version, [])
    # Who launched a training did not ask for its deployment, but wants it.
    trained = asking.materialize(THIRD, STAGES[:3], tags=ANNA)
    assert trained.success
    assert asking.materialize(THIRD, ["deployment"]).success
    assert "anna launched its training (run " in inprocess.failures(asking.decide(THIRD, ANNA, approve=True, reason="x"))[0]
    # Without the record, whoever asked could approve.
    asking.settings.approvals_file.unlink()
    assert "no record tells who asked for" in inprocess.failures(asking.decide(THIRD, carla, approve=True, reason="x"))[0]


def test_what_a_person_refused_is_asked_for_again_by_a_person_alone(ward: Ward) -> None:
    asking = ward.wanting("required")
    version, before = asking.train_only(SECOND), asking.predicts
    assert asking.decide(SECOND, ANNA, approve=False, reason="worse at night").success
    assert (asking.predicts, asking.waiting) == (before, [])
    again = approval_of(asking.materialize(SECOND, ["deployment"]))
    assert again.description == f"version {version} was refused by anna: worse at night"
    assert asking.waiting == []
    assert asking.decide(SECOND, BERT, reason="nights are over").success
    assert asking.waiting == [version]
    # A later version overtakes it.
    later = asking.train_only(THIRD)
    assert asking.waiting == [later]


def test_a_champion_that_nobody_approved_predicts_nothing(ward: Ward) -> None:
    asking = ward.wanting("required")
    version = asking.train_only(SECOND)
    asking.registry.remove_alias(ward.name, "champion")
    with pytest.raises(dg.Failure, match=r"has no champion yet: a person has to approve a version .*: mlops approvals"):
        load_champions(asking.instance, asking.registry, asking.settings, asking.inputs)
    asking.registry.set_alias(ward.name, "champion", version)
    with pytest.raises(EvidenceError, match=f"Version {version} of {ward.name} was never approved"):
        load_champions(asking.instance, asking.registry, asking.settings, asking.inputs)


def test_a_decision_that_was_written_by_hand_does_not_count(ward: Ward) -> None:
    asking = ward.wanting("required")
    version, before = asking.train_only(SECOND), asking.predicts
    file, good = asking.settings.approvals_file, asking.settings.approvals_file.read_text()
    forged = json.loads(good)
    forged["entry"] |= {"step": "approved", "by": "anna", "identified_by": "sign-in"}
    file.write_text(good + json.dumps(forged) + "\n")
    refused = asking.materialize(SECOND, ["deployment"])
    assert f"Line 2 of {file} is not as this installation signed it" in inprocess.failures(refused)[0]
    assert asking.predicts == before
    # A rollback reads none of it.
    assert asking.decide(FIRST, {}, version=before, reason="as before").success
    # A refusal that is taken from among the others is missed.
    file.write_text(good)
    assert asking.decide(SECOND, ANNA, approve=False, reason="no").success
    assert asking.decide(SECOND, ANNA, reason="yes").success
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(EvidenceError, match="Line 2 of"):
        assert asking.entries
    file.write_text("".join(lines))
    assert asking.waiting == [version]


def test_without_the_policy_nothing_is_asked_and_nothing_can_be_decided(ward: Ward) -> None:
    decided = ward.decide(FIRST, ANNA, approve=True, reason="x")
    assert "predicted before, and waits for nobody" in inprocess.failures(decided)[0]
    version = ward.train_only(SECOND)
    assert ward.predicts == version
    assert not ward.settings.approvals_file.exists()
    assert solution_states(ward.settings, {}) == {}
