"""One version of a solution's model as the model registry holds it, and the names of its tags. None of it is trusted: see `bundle_record.py`."""

from collections.abc import Mapping
from dataclasses import dataclass

TRAINING_DATE_TAG = "training_date"
DATASET_FINGERPRINT_TAG = "dataset_fingerprint"
CONFIGURATION_TAG = "configuration_hash"
ENVIRONMENT_TAG = "environment"
"""Where it was trained: the name of the environment, for people."""
SEGMENT_TAG = "segment"
"""On the version of a segment: which one."""

RECALIBRATES_TAG = "recalibrates"
"""On a recalibrated version: the number of the version whose model file it has."""
RECALIBRATION_TAG = "recalibration"
"""On a recalibrated version: the version it is made of, by which method, and on how many rows, in words for people."""

COPIED_FROM_TAG = "copied_from"
"""On a version that was copied from another environment: `<environment> version <number>`."""
ORIGIN_TAG = "origin"
"""On a copied version: where it was made, as JSON: runs, dataset, snapshot, training date, SHA-256 of the bundle. For people."""

ENGINE_TAG, ENGINE_REASON_TAG = "serving_engine", "serving_engine_reason"
"""On an accepted version: which engine answers online unless the YAML file names another, and why. Its acceptance signs them."""

COMPLETE_TAG = "bundle"
"""Whether the version has its files: `COMPLETE`, `WITHDRAWN` once they went, nothing while its training lasts or when that was interrupted."""
COMPLETE, WITHDRAWN = "complete", "expired"

GATES_TAG = "status"
"""What the gates said of a version, for people: `GATES_PASSED` or `GATES_FAILED`; a version that was not evaluated has no such tag."""
GATES_PASSED, GATES_FAILED = "accepted", "rejected"
REJECTION_TAG = "rejected_because"
"""On a rejected version: each gate that failed, and why."""

APPROVED_BY = "approved_by"
"""Metadata of a deployment in Dagster: who approved the version, where the YAML wants somebody to."""


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a solution's model."""

    solution: str
    version: int
    run_id: str
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"Version {self.version} of {self.solution}"

    @property
    def segment(self) -> str | None:
        """The segment whose rows it was trained on; None for the solution's own model."""
        return self.tags.get(SEGMENT_TAG)

    @property
    def recalibration(self) -> str | None:
        """Whose recalibration it is, in words; None for a version that was fitted."""
        return self.tags.get(RECALIBRATION_TAG)

    @property
    def is_usable(self) -> bool:
        """Whether it has its files, and failed no gate."""
        return self.tags.get(COMPLETE_TAG) == COMPLETE and self.tags.get(GATES_TAG) != GATES_FAILED

    @property
    def failed_gates(self) -> str:
        """The gates that it failed, with the reason of each, as the end of a phrase; nothing where none is recorded."""
        return f"; failed {self.tags[REJECTION_TAG]}" if REJECTION_TAG in self.tags else ""
