"""The signed records of a version: whose it is, what it was trained on, and the SHA-256 of every file of its bundle or its reference.

`model` signs the record of the bundle when it registers a version, `evaluation` signs it again when every gate passed, and signs that of
the monitoring reference. The signatures are tags of the version; that of the acceptance also lies beside the bundle that serves. A tag that
somebody writes, copies from another version, or a file that somebody replaces does not fit to a signature. Whoever decides by a fact of a
version takes it from its record, not from its tags. Reading a bundle belongs to `serving/bundle.py`.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from mlops_assets.clients.registered_model import (
    CONFIGURATION_TAG,
    DATASET_FINGERPRINT_TAG,
    GATES_PASSED,
    GATES_TAG,
    PARITY_TAGS,
    ROUNDING_TAGS,
    SEGMENT_TAG,
    TRAINING_DATE_TAG,
    RegisteredModel,
)
from mlops_assets.clients.signatures import Signer

BUNDLE_TAG = "bundle_sha256"
"""One hash over the names and contents of all files of the bundle."""

FILES_TAG = "bundle_files"
"""The hash of each file of the bundle, as JSON."""

REFERENCE_FILES_TAG = "reference_files"
"""The hash of each file of the monitoring reference, as JSON."""

REGISTRATION_TAG, ACCEPTANCE_TAG, REFERENCE_TAG = "registration_signature", "acceptance_signature", "reference_signature"

_FORMER_TAG = "float32_changed_share"
"""Of versions that an earlier release signed; nothing reads it any more."""
SIGNED_TAGS = (
    TRAINING_DATE_TAG,
    DATASET_FINGERPRINT_TAG,
    CONFIGURATION_TAG,
    SEGMENT_TAG,
    *PARITY_TAGS,
    *ROUNDING_TAGS,
    _FORMER_TAG,
)
"""Tags of a version that decide something: a signature covers their values."""

Purpose = Literal["registered", "accepted", "reference"]
_SIGNATURE_TAGS: dict[Purpose, str] = {"registered": REGISTRATION_TAG, "accepted": ACCEPTANCE_TAG, "reference": REFERENCE_TAG}


class EvidenceError(Exception):
    """The evidence that a version may be used is lacking or does not fit to it; the message says which, and the remedy."""


@dataclass(frozen=True)
class BundleRecord:
    """What is signed of one version: its run, the values of `SIGNED_TAGS`, and the SHA-256 of each file of its bundle (or reference)."""

    solution: str
    version: int
    run_id: str
    tags: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def training_date(self) -> date:
        """What the model may know ends on this day."""
        return date.fromisoformat(self.tags[TRAINING_DATE_TAG])

    @property
    def dataset_fingerprint(self) -> str:
        """Identity of the training dataset."""
        return self.tags[DATASET_FINGERPRINT_TAG]

    @property
    def segment(self) -> str | None:
        """The segment whose rows the version was trained on; None for the solution's own model."""
        return self.tags.get(SEGMENT_TAG)

    @property
    def sha256(self) -> str:
        """One hash over the names and contents of all files."""
        return tree_hash(self.files)

    def sign(self, signer: Signer, purpose: Purpose) -> dict[str, str]:
        """The tag that holds the signature under this record, by name."""
        return {_SIGNATURE_TAGS[purpose]: signer.sign(purpose, asdict(self))}

    def is_signed(self, signer: Signer, purpose: Purpose, signature: str) -> bool:
        """Whether `signature` is the one under this record."""
        return signer.is_genuine(signature, purpose, asdict(self))


def tree_hash(files: Mapping[str, str]) -> str:
    """One SHA-256 over the names of `files` and the SHA-256 of each."""
    lines = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def folder_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a bundle's `folder`, by name."""
    files = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def describe(version: RegisteredModel, files: Mapping[str, str]) -> BundleRecord:
    """The record of `version` with a bundle of these `files`."""
    tags = {name: version.tags[name] for name in SIGNED_TAGS if name in version.tags}
    return BundleRecord(version.solution, version.version, version.run_id, tags, dict(files))


def registered_record(signer: Signer, version: RegisteredModel) -> BundleRecord:
    """The record that `model` signed. Raises EvidenceError when the version has none, or was changed since."""
    day = version.tags.get(TRAINING_DATE_TAG, "its training date")
    signature, files = version.tags.get(REGISTRATION_TAG), version.tags.get(FILES_TAG)
    if signature is None or files is None:
        raise EvidenceError(
            f"{version} has no signed record of its bundle (tags {REGISTRATION_TAG} and {FILES_TAG}): this installation did not register "
            f"it. Train it here: mlops train {version.solution} --date {day}"
        )
    record = describe(version, _parse_files(version, FILES_TAG, files))
    if not record.is_signed(signer, "registered", signature):
        raise EvidenceError(
            f"{version} was changed in MLflow after it was registered: the tag {REGISTRATION_TAG} is no signature under its run, its "
            f"bundle's hashes and its tags {', '.join(record.tags)}. Train it again: mlops train {version.solution} --date {day}"
        )
    return record


def accepted_record(signer: Signer, version: RegisteredModel) -> tuple[BundleRecord, str]:
    """The record of a version that passed its gates, and the signature that its evaluation put under it.

    Raises EvidenceError without one: the tag `GATES_TAG` alone says nothing.
    """
    record = registered_record(signer, version)
    status, signature = version.tags.get(GATES_TAG), version.tags.get(ACCEPTANCE_TAG)
    if status != GATES_PASSED:
        evidence = f"tag {GATES_TAG} = {status or 'missing'}"
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


def reference_record(signer: Signer, version: RegisteredModel) -> BundleRecord:
    """The record of the monitoring reference of `version`. Raises EvidenceError when its evaluation signed none, or it was changed since."""
    registered_record(signer, version)
    signature, files = version.tags.get(REFERENCE_TAG), version.tags.get(REFERENCE_FILES_TAG)
    if signature is None or files is None:
        raise EvidenceError(
            f"{version} has no signed monitoring reference (tags {REFERENCE_TAG} and {REFERENCE_FILES_TAG}). {reference_remedy(version)}"
        )
    record = describe(version, _parse_files(version, REFERENCE_FILES_TAG, files))
    if not record.is_signed(signer, "reference", signature):
        raise EvidenceError(
            f"The monitoring reference of {version} was changed in MLflow: the tag {REFERENCE_TAG} is no signature of its evaluation under "
            f"the hashes in {REFERENCE_FILES_TAG}. {reference_remedy(version)}"
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
    path = record_file(bundle)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps({"record": asdict(record), "signature": signature}, indent=1) + "\n")
    scratch.replace(path)


def served_record(signer: Signer, bundle: Path) -> BundleRecord:
    """The record beside the folder `bundle`, `<solution>/<version>`. Raises EvidenceError when it is missing or not genuine."""
    path = record_file(bundle)
    solution, version = bundle.parent.name, bundle.name
    remedy = f'Deploy the version again: mlops promote {solution} --to {version} --reason "restore its record"'
    if not path.is_file():
        raise EvidenceError(f"{path}, the signed record of the bundle, is missing. {remedy}")
    try:
        content = json.loads(path.read_bytes())
        record, signature = BundleRecord(**content["record"]), str(content["signature"])
    except (ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"{path} is no record of a bundle. {remedy}") from error
    if (record.solution, str(record.version)) != (solution, version) or not record.is_signed(signer, "accepted", signature):
        raise EvidenceError(
            f"{path} was changed after deployment, or belongs to another bundle: its signature does not fit. {remedy}"
        )
    return record


def _parse_files(version: RegisteredModel, tag: str, text: str) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise EvidenceError(f"The tag {tag} of {version} is not the JSON that was signed: train the version again.") from error
