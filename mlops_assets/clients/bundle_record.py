"""The signed records of a version: whose it is, what it was trained on, and the SHA-256 of every file of its bundle or its reference.

`model` signs the record of the bundle when it registers a version, `evaluation` signs it again when every gate passed, and signs that of
the monitoring reference. Records and signatures are tags of the version; that of the acceptance also lies beside the bundle that serves. A
record that somebody writes, copies from another version, or a file that somebody replaces does not fit to a signature. Whoever decides by a
fact of a version takes it from its record, not from another tag. Reading a bundle belongs to `serving/bundle_loading.py`.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from mlops_assets.clients.registered_model import (
    CONFIGURATION_TAG,
    COPIED_FROM_TAG,
    DATASET_FINGERPRINT_TAG,
    ENGINE_REASON_TAG,
    ENGINE_TAG,
    GATES_PASSED,
    GATES_TAG,
    RECALIBRATES_TAG,
    SEGMENT_TAG,
    TRAINING_DATE_TAG,
    RegisteredModel,
)
from mlops_assets.clients.signatures import Signer

BUNDLE_TAG = "bundle_sha256"
"""One hash over the names and contents of all files of the bundle."""

RECORD_TAG = "bundle_record"
"""The record of the bundle, as JSON."""

REFERENCE_RECORD_TAG = "reference_record"
"""The record of the monitoring reference, as JSON."""

REGISTRATION_TAG, ACCEPTANCE_TAG, REFERENCE_TAG = "registration_signature", "acceptance_signature", "reference_signature"

GATED_FOLDER = "gated"
"""Folder in a bundle with the bundle of the fit that the gates evaluated, where another one, fitted with the hold-out too, serves."""

Purpose = Literal["registered", "accepted", "reference"]
_TRAINING_TAGS = (TRAINING_DATE_TAG, DATASET_FINGERPRINT_TAG, CONFIGURATION_TAG, SEGMENT_TAG, RECALIBRATES_TAG, COPIED_FROM_TAG)
_SIGNATURE_TAGS: dict[Purpose, str] = {"registered": REGISTRATION_TAG, "accepted": ACCEPTANCE_TAG, "reference": REFERENCE_TAG}


class EvidenceError(Exception):
    """The evidence that a version may be used is lacking or does not fit to it; the message says which, and the remedy."""


class TrainingIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The identity of a training. Its data end on `training_date`; without a `segment` it is trained on all rows.

    One that fits no model has the number of the version that it `recalibrates`, or what it was `copied_from`: its data end then at the latest
    on that date.
    """

    training_date: date
    dataset_fingerprint: str
    configuration_hash: str
    segment: str | None
    recalibrates: int | None = None
    copied_from: str | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which a version or a run of this training is found in MLflow."""
        return {
            TRAINING_DATE_TAG: self.training_date.isoformat(),
            DATASET_FINGERPRINT_TAG: self.dataset_fingerprint,
            CONFIGURATION_TAG: self.configuration_hash,
            **({SEGMENT_TAG: self.segment} if self.segment is not None else {}),
            **({RECALIBRATES_TAG: str(self.recalibrates)} if self.recalibrates is not None else {}),
            **({COPIED_FROM_TAG: self.copied_from} if self.copied_from is not None else {}),
        }


class Precision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The precision with which the serving model gives the pipeline's predictions, measured on `rows` rows of the hold-out.

    `largest_difference` compares both on the same numbers. Reading numbers as float32 changes `float32_changed`, a share of the predictions,
    and all by `float32_mean_change` on average.
    """

    rows: int
    largest_difference: float
    float32_changed: float
    float32_mean_change: float


class BundleRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The signed record of one version: run, training, precision, and the SHA-256 of each file of its bundle (or reference).

    An acceptance also has the engine that answers online, with the reason.
    """

    solution: str
    version: int
    run_id: str
    training: TrainingIdentity
    precision: Precision
    files: dict[str, str]
    engine: str | None = None
    engine_reason: str | None = None

    @property
    def sha256(self) -> str:
        """One hash over the names and contents of all files."""
        return tree_hash(self.files)

    @property
    def is_refitted(self) -> bool:
        """Whether another fit serves than the one that the gates evaluated."""
        return any(name.startswith(f"{GATED_FOLDER}/") for name in self.files)

    @property
    def text(self) -> str:
        """The record as JSON."""
        return json.dumps(self._content())

    @classmethod
    def parse(cls, text: str | bytes) -> "BundleRecord":
        """The record in `text`. Raises ValueError when it is none."""
        # Not by msgspec's own JSON, which has no infinite numbers.
        return msgspec.convert(json.loads(text), cls)

    def sign(self, signer: Signer, purpose: Purpose) -> dict[str, str]:
        """The tag that holds the signature under this record, by name."""
        return {_SIGNATURE_TAGS[purpose]: signer.sign(purpose, self._content())}

    def is_signed(self, signer: Signer, purpose: Purpose, signature: str) -> bool:
        """Whether `signature` is the one under this record."""
        return signer.is_genuine(signature, purpose, self._content())

    def is_of(self, version: RegisteredModel) -> bool:
        """Whether this is a record of `version` with the tags that it has now."""
        tags = {name: version.tags[name] for name in _TRAINING_TAGS if name in version.tags}
        return (self.solution, self.version, self.run_id, self.training.tags) == (
            version.solution,
            version.version,
            version.run_id,
            tags,
        )

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = msgspec.to_builtins(self)
        return content


class _ServedRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file beside a bundle that serves."""

    record: BundleRecord
    signature: str


def tree_hash(files: Mapping[str, str]) -> str:
    """One SHA-256 over the names of `files` and the SHA-256 of each."""
    lines = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def folder_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a bundle's `folder`, by name."""
    files = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def registered_record(signer: Signer, version: RegisteredModel) -> BundleRecord:
    """The record that `model` signed. Raises EvidenceError when the version has none, or was changed since."""
    day = version.tags.get(TRAINING_DATE_TAG, "its training date")
    text, signature = version.tags.get(RECORD_TAG), version.tags.get(REGISTRATION_TAG)
    if text is None and signature is not None:
        raise EvidenceError(
            f"{version} was registered by an earlier release, which signed no {RECORD_TAG}: how exactly its bundle predicts is not known. "
            "This release does not use such versions. Begin with an empty state folder (MLOPS_HOME) and train there."
        )
    if text is None or signature is None:
        raise EvidenceError(
            f"{version} has no signed record of its bundle (tags {RECORD_TAG} and {REGISTRATION_TAG}): this installation did not register "
            f"it. Train it here: mlops train {version.solution} --date {day}"
        )
    record = _parse(text)
    if record is None or not record.is_of(version) or not record.is_signed(signer, "registered", signature):
        raise EvidenceError(
            f"{version} was changed in MLflow after it was registered: the tag {REGISTRATION_TAG} is no signature under {RECORD_TAG}, or "
            f"that is not a record of its run and its tags {', '.join(_TRAINING_TAGS)}. Train it again: mlops train {version.solution} "
            f"--date {day}"
        )
    return record


def accepted_record(signer: Signer, version: RegisteredModel) -> tuple[BundleRecord, str]:
    """The record of a version that passed its gates, and the signature that its evaluation put under it.

    Raises EvidenceError without one: the tag `GATES_TAG` alone says nothing.
    """
    record = with_engine(registered_record(signer, version), version)
    status, signature = version.tags.get(GATES_TAG), version.tags.get(ACCEPTANCE_TAG)
    if status != GATES_PASSED:
        evidence = f"tag {GATES_TAG} = {status or 'missing'}{version.failed_gates}"
    elif signature is None:
        evidence = f"tag {GATES_TAG} = {status}, but without the tag {ACCEPTANCE_TAG}, the signature of its evaluation"
    elif not record.is_signed(signer, "accepted", signature):
        evidence = f"tag {GATES_TAG} = {status}, but the tag {ACCEPTANCE_TAG} is no signature of its evaluation under this version and bundle"
    else:
        return record, signature
    raise EvidenceError(
        f"{version} has not passed its gates ({evidence}): materialize its evaluation for "
        f"{version.tags.get(TRAINING_DATE_TAG)} and read its checks."
    )


def with_engine(record: BundleRecord, version: RegisteredModel) -> BundleRecord:
    """The record with the engine in the tags of `version`, as an acceptance has it."""
    return replace(record, engine=version.tags.get(ENGINE_TAG), engine_reason=version.tags.get(ENGINE_REASON_TAG))


def reference_record(signer: Signer, version: RegisteredModel) -> BundleRecord:
    """The record of the monitoring reference of `version`. Raises EvidenceError when its evaluation signed none, or it was changed since."""
    registered_record(signer, version)
    text, signature = version.tags.get(REFERENCE_RECORD_TAG), version.tags.get(REFERENCE_TAG)
    if text is None or signature is None:
        raise EvidenceError(
            f"{version} has no signed monitoring reference (tags {REFERENCE_RECORD_TAG} and {REFERENCE_TAG}). {reference_remedy(version)}"
        )
    record = _parse(text)
    if record is None or not record.is_of(version) or not record.is_signed(signer, "reference", signature):
        raise EvidenceError(
            f"The monitoring reference of {version} was changed in MLflow: the tag {REFERENCE_TAG} is no signature of its evaluation under "
            f"{REFERENCE_RECORD_TAG}. {reference_remedy(version)}"
        )
    return record


def reference_remedy(version: RegisteredModel) -> str:
    """How the monitoring reference of `version` is written and signed again."""
    return (
        f"Materialize the evaluation of {version.solution} for {version.tags.get(TRAINING_DATE_TAG)} again, "
        "which writes and signs the reference from the lake."
    )


def record_file(bundle: Path) -> Path:
    """The file beside the folder `bundle` with its record and the signature of its acceptance."""
    return bundle.parent / f"{bundle.name}.json"


def write_record(bundle: Path, record: BundleRecord, signature: str) -> None:
    """Put the record beside the folder `bundle`. A reader sees the former file or this one."""
    write_served(bundle, encode_served(record, signature))


def write_served(bundle: Path, content: bytes) -> None:
    """Put the `content` that `encode_served` gives beside the folder `bundle`, as `write_record` does."""
    path = record_file(bundle)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(content)
    scratch.replace(path)


def encode_served(record: BundleRecord, signature: str) -> bytes:
    """The content of the file beside a bundle that serves."""
    return (json.dumps({"record": msgspec.to_builtins(record), "signature": signature}, indent=1) + "\n").encode()


def parse_served(content: bytes) -> tuple[BundleRecord, str]:
    """The record and the signature in the file beside a bundle. Raises ValueError when it is none."""
    served = msgspec.convert(json.loads(content), _ServedRecord)
    return served.record, served.signature


def served_record(signer: Signer, bundle: Path) -> BundleRecord:
    """The record beside the folder `bundle`, `<solution>/<version>`. Raises EvidenceError when it is missing or not genuine."""
    path = record_file(bundle)
    solution, version = bundle.parent.name, bundle.name
    remedy = f'Deploy the version again: mlops promote {solution} --to {version} --reason "restore its record"'
    if not path.is_file():
        raise EvidenceError(f"{path}, the signed record of the bundle, is missing. {remedy}")
    try:
        record, signature = parse_served(path.read_bytes())
    except ValueError as error:
        raise EvidenceError(f"{path} is no record of a bundle of this release: {error}. {remedy}") from error
    if (record.solution, str(record.version)) != (solution, version) or not record.is_signed(signer, "accepted", signature):
        raise EvidenceError(
            f"{path} was changed after deployment, or belongs to another bundle: its signature does not fit. {remedy}"
        )
    return record


def _parse(text: str) -> BundleRecord | None:
    try:
        return BundleRecord.parse(text)
    except ValueError:
        return None
