"""Which versions may predict, by their signed record and a real event log."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from bundles import record_of
from materialized import materialize_in_run
from msgspec.structs import replace as replace_struct

from mlops_assets.clients.bundle_record import ACCEPTANCE_TAG, RECORD_TAG
from mlops_assets.clients.registered_model import GATES_FAILED, GATES_PASSED, GATES_TAG, REJECTION_TAG, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.keys import DEPLOYMENT, EVALUATION, SEGMENT, SEGMENT_STAGES, TRAINING_DATE, stage_key
from mlops_assets.training.acceptance import gates_problem, was_deployed
from mlops_assets.training.evidence import GATES_PASSED_METADATA

DAY = "2024-01-10"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "key")


def signed(signer: Signer, version: int, *, segment: str | None = None, status: str = GATES_PASSED) -> RegisteredModel:
    """A version that `model` registered, and whose evaluation accepted it."""
    record = record_of("x", version)
    record = replace_struct(
        record, training=replace_struct(record.training, training_date=date.fromisoformat(DAY), segment=segment)
    )
    evidence = {**record.sign(signer, "registered"), **record.sign(signer, "accepted"), RECORD_TAG: record.text}
    return RegisteredModel("x", version, record.run_id, {**record.training.tags, **evidence, GATES_TAG: status})


def record_event(instance: dg.DagsterInstance, model: RegisteredModel, stage: str, **metadata: object) -> None:
    name = stage if model.segment is None else SEGMENT_STAGES[stage]
    partition = DAY if model.segment is None else str(dg.MultiPartitionKey({SEGMENT: model.segment, TRAINING_DATE: DAY}))
    materialize_in_run(instance, stage_key("x", name), partition, {"model_version": model.version, **metadata})


def test_a_version_whose_evaluation_signed_it_may_predict(signer: Signer) -> None:
    assert gates_problem(dg.DagsterInstance.ephemeral(), signer, signed(signer, 1)) is None


@pytest.mark.parametrize("tag", [ACCEPTANCE_TAG, RECORD_TAG, GATES_TAG])
def test_a_version_that_lacks_a_signature_may_not(tag: str, signer: Signer) -> None:
    model = signed(signer, 1)
    without = replace(model, tags={name: value for name, value in model.tags.items() if name != tag})
    assert "Version 1 of x" in str(gates_problem(dg.DagsterInstance.ephemeral(), signer, without))


def test_a_status_or_a_signature_written_by_hand_is_none(signer: Signer, tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    refused = signed(signer, 1, status=GATES_FAILED)
    refused = replace(refused, tags={**refused.tags, REJECTION_TAG: "floor: roc_auc 0.61, floor 0.65 missed"})
    assert "has not passed its gates (tag status = rejected; failed floor: roc_auc 0.61, floor 0.65 missed): materialize" in str(
        gates_problem(instance, signer, refused)
    )
    foreign = signed(Signer(tmp_path / "another"), 1)
    assert "was changed in MLflow" in str(gates_problem(instance, signer, foreign))
    # The signature under version 1 says nothing of version 2.
    assert gates_problem(instance, signer, replace(signed(signer, 1), version=2)) is not None


@pytest.mark.parametrize("segment", [None, "north"])
def test_a_signature_that_a_later_evaluation_withdrew_and_somebody_put_back_does_not_count(
    segment: str | None, signer: Signer
) -> None:
    instance, model, other = (
        dg.DagsterInstance.ephemeral(),
        signed(signer, 1, segment=segment),
        signed(signer, 2, segment=segment),
    )
    record_event(instance, model, EVALUATION, **{GATES_PASSED_METADATA: True})
    record_event(instance, other, EVALUATION, **{GATES_PASSED_METADATA: False})
    assert gates_problem(instance, signer, model) is None
    record_event(instance, model, EVALUATION, **{GATES_PASSED_METADATA: False})
    assert "rejected it" in str(gates_problem(instance, signer, model))
    record_event(instance, model, EVALUATION, **{GATES_PASSED_METADATA: True})
    assert gates_problem(instance, signer, model) is None


def test_what_was_deployed_is_told_by_version_and_segment(signer: Signer) -> None:
    instance, whole, north = dg.DagsterInstance.ephemeral(), signed(signer, 1), signed(signer, 1, segment="north")
    record_event(instance, north, DEPLOYMENT)
    assert [was_deployed(instance, model) for model in (whole, north)] == [False, True]
    assert not was_deployed(instance, signed(signer, 2, segment="north"))


def test_what_somebody_reported_as_a_deployment_was_none(signer: Signer) -> None:
    instance, model = dg.DagsterInstance.ephemeral(), signed(signer, 1)
    event = dg.AssetMaterialization(stage_key("x", DEPLOYMENT), partition=DAY, metadata={"model_version": model.version})
    instance.report_runless_asset_event(event)
    assert not was_deployed(instance, model)
