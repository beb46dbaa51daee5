"""The signed record of a version: its values stay numbers, and what is no such record is refused with the remedy."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from bundles import record_of, sign_record
from msgspec.structs import replace

from mlops_assets.clients.bundle_record import (
    BundleRecord,
    EvidenceError,
    Precision,
    accepted_record,
    registered_record,
    served_record,
    write_record,
)
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "signing_key")


def registered(record: BundleRecord, signer: Signer, text: str | None) -> RegisteredModel:
    """The version of `record` with its tags in MLflow, and `text` in place of its record if it is given."""
    tags = record.training.tags | {"bundle_record": record.text if text is None else text} | record.sign(signer, "registered")
    return RegisteredModel(record.solution, record.version, record.run_id, tags)


def test_the_version_that_is_recalibrated_is_signed_and_older_records_stay_genuine(signer: Signer) -> None:
    fitted = record_of("delays", 3)
    assert "recalibrates" not in fitted.text
    recalibrated = replace(fitted, training=replace(fitted.training, recalibrates=2))
    version = registered(recalibrated, signer, None)
    assert registered_record(signer, version).training.recalibrates == 2
    for tags in (
        {**version.tags, "recalibrates": "1"},
        {name: tag for name, tag in version.tags.items() if name != "recalibrates"},
    ):
        with pytest.raises(EvidenceError, match="was changed in MLflow"):
            registered_record(signer, RegisteredModel("delays", 3, version.run_id, tags))


@pytest.mark.parametrize("difference", [0.0, 3.6e-8, 0.1 + 0.2, 5e-324, math.inf])
def test_a_gate_reads_the_value_that_was_measured(signer: Signer, difference: float) -> None:
    precision = Precision(rows=20_000, largest_difference=difference, float32_changed=1 / 3, float32_mean_change=difference)
    record = record_of("delays", 3, precision=precision)
    read = registered_record(signer, registered(record, signer, None))
    assert read == record
    assert isinstance(read.precision.rows, int)


@pytest.mark.parametrize(
    "change",
    [
        {"precision": {"rows": 100, "largest_difference": "0.0", "float32_changed": 0.0, "float32_mean_change": 0.0}},
        {"precision": {"rows": 100, "largest_difference": None, "float32_changed": 0.0, "float32_mean_change": 0.0}},
        {"precision": {"rows": 100, "largest_difference": 0.0}},
        {"version": 4},
        {"run_id": "another"},
        {"threshold": 0.5},
    ],
)
def test_a_record_that_is_not_the_signed_one_is_refused(signer: Signer, change: dict[str, Any]) -> None:
    record = record_of("delays", 3)
    version = registered(record, signer, json.dumps(json.loads(record.text) | change))
    with pytest.raises(
        EvidenceError, match=r"was changed in MLflow after it was registered.*mlops train delays --date 2020-03-01"
    ):
        registered_record(signer, version)


def test_a_version_of_an_earlier_release_gets_no_made_up_values(signer: Signer) -> None:
    former = {"training_date": "2020-03-01", "onnx_largest_difference": "1e-08", "onnx_rows": "100", "bundle_files": "{}"}
    version = RegisteredModel("delays", 3, "run-3", former | {"registration_signature": signer.sign("registered", former)})
    with pytest.raises(EvidenceError, match=r"Version 3 of delays was registered by an earlier release.*empty state folder"):
        registered_record(signer, version)


def test_a_bundle_that_an_earlier_release_deployed_is_refused(signer: Signer, tmp_path: Path) -> None:
    bundle = tmp_path / "delays" / "3"
    bundle.mkdir(parents=True)
    sign_record(bundle, signer)
    assert served_record(signer, bundle).solution == "delays"
    former = {"solution": "delays", "version": 3, "run_id": "run-3", "tags": {"onnx_rows": "100"}, "files": {}}
    content = {"record": former, "signature": signer.sign("accepted", former)}
    bundle.with_name("3.json").write_text(json.dumps(content))
    with pytest.raises(EvidenceError, match=r"3\.json is no record of a bundle of this release: .*mlops promote delays --to 3"):
        served_record(signer, bundle)


def accepted(signer: Signer, **engine: str) -> RegisteredModel:
    record = record_of("flights", 1)
    model = registered(record, signer, None)
    tags = {**model.tags, **replace(record, **engine).sign(signer, "accepted"), "status": "accepted"}
    return RegisteredModel("flights", 1, record.run_id, tags | {f"serving_{name}": value for name, value in engine.items()})


def test_the_engine_of_an_acceptance_is_signed_and_reaches_the_servers(signer: Signer, tmp_path: Path) -> None:
    record, signature = accepted_record(signer, accepted(signer, engine="worker", engine_reason="slow"))
    assert (record.engine, record.engine_reason) == ("worker", "slow")
    folder = tmp_path / "flights" / "1"
    folder.mkdir(parents=True)
    write_record(folder, record, signature)
    assert served_record(signer, folder) == record


def test_an_engine_that_somebody_wrote_into_a_tag_is_no_evidence(signer: Signer) -> None:
    model = accepted(signer, engine="worker", engine_reason="slow")
    forged = RegisteredModel("flights", 1, model.run_id, {**model.tags, "serving_engine": "process"})
    with pytest.raises(EvidenceError, match="acceptance_signature"):
        accepted_record(signer, forged)


def test_an_acceptance_without_an_engine_stays_genuine(signer: Signer) -> None:
    record, _ = accepted_record(signer, accepted(signer))
    assert "engine" not in json.loads(record.text)
