"""The check rules of a solution's stages: name, meaning, and whether a failure stops what is downstream."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import dagster as dg

MOST_EXAMPLES = 5
"""So many offending rows or values are the evidence of a result."""


class PartitionCheckResult(dg.AssetCheckResult):
    """The outcome of a check for one partition. In a run of several, Dagster's own result names none."""

    partition: str

    @classmethod
    def of(cls, result: dg.AssetCheckResult, partition: str) -> Self:
        """`result` as that of `partition`."""
        outcome = cls(**result._asdict())
        outcome.partition = partition
        return outcome


@dataclass(frozen=True)
class CheckRule:
    """Name, meaning and consequence of one check: `blocking` stops downstream assets, otherwise a failure is a warning."""

    name: str
    description: str
    blocking: bool

    def spec(self, key: dg.AssetKey) -> dg.AssetCheckSpec:
        """The check of asset `key` by this rule: one result for the whole asset."""
        return self.partitioned_spec(key, None)

    def partitioned_spec(self, key: dg.AssetKey, partitions: dg.PartitionsDefinition | None) -> dg.AssetCheckSpec:
        """The check of asset `key` by this rule: one result for each of `partitions`."""
        with warnings.catch_warnings():
            # Partitioned checks are a preview in the version of Dagster that the lock pins.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.AssetCheckSpec(
                name=self.name, asset=key, description=self.description, blocking=self.blocking, partitions_def=partitions
            )

    def result(
        self, key: dg.AssetKey, *, passed: bool, metadata: Mapping[str, Any], description: str | None
    ) -> dg.AssetCheckResult:
        """The outcome, with the evidence."""
        return dg.AssetCheckResult(
            check_name=self.name,
            asset_key=key,
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR if self.blocking else dg.AssetCheckSeverity.WARN,
            metadata=metadata,
            description=description,
        )


# training_dataset
SCHEMA = CheckRule(name="schema", description="Columns have the types and ranges the model expects (pandera).", blocking=True)
ROW_COUNT = CheckRule(name="row_count", description="There are enough rows to train and to evaluate on.", blocking=True)
DUPLICATES = CheckRule(name="duplicates", description="Each key occurs once.", blocking=True)
MISSING = CheckRule(
    name="missing",
    description="No feature is missing more often than the limit, in all rows and in the training rows alone.",
    blocking=True,
)
CONSTANT = CheckRule(
    name="constant_columns", description="No feature is constant or nearly constant over the training rows.", blocking=False
)
LABEL_RATE = CheckRule(
    name="label_rate", description="The label takes several values, and its rate is within the bounds.", blocking=True
)
LEAKAGE = CheckRule(
    name="leakage_guard",
    description="No feature was known only after the prediction, no label only after training, and no feature gives the label away.",
    blocking=True,
)

# model
ONNX_PARITY = CheckRule(
    name="onnx_parity",
    description="The ONNX bundle predicts what the scikit-learn pipeline predicts, on real rows.",
    blocking=True,
)

# online_features
ONLINE_OFFLINE_PARITY = CheckRule(
    name="online_offline_parity",
    description="The online store serves what the point-in-time join of the lake gives, value by value, for entities of the newest rows.",
    blocking=True,
)

# deployment, predictions, outcomes
CHAMPION_DEPLOYED = CheckRule(
    name="champion_deployed", description="The serving folder holds the registry's champion, unaltered.", blocking=True
)
SERVED_VERSION = CheckRule(
    name="served_version",
    description="Every running server process answers with the registry's champion, and those of its segments.",
    blocking=False,
)
COMPLETE = CheckRule(name="complete", description="Every row of the spine has exactly one prediction.", blocking=True)
FINITE = CheckRule(name="finite_scores", description="Every prediction is a finite number.", blocking=True)
FRESH_FEATURES = CheckRule(
    name="fresh_features",
    description="In no partition were the values of a feature view too old for many predictions, or older than the solution accepts.",
    blocking=False,
)
LOGGED_ONCE = CheckRule(name="logged_once", description="No prediction of a server is in the lake twice.", blocking=False)
LOG_ACCEPTED = CheckRule(
    name="log_accepted",
    description="Every record of the prediction log could be taken into the lake; the others are in the stream of rejects.",
    blocking=False,
)
LABELS_MATURED = CheckRule(
    name="labels_matured", description="The share of predictions whose outcome is known is as expected.", blocking=False
)

# reports on a monitoring window
DRIFT = CheckRule(
    name="drift", description="The share of drifted features stays below the limit in every window.", blocking=False
)
PERFORMANCE = CheckRule(
    name="performance",
    description="The metric that models are chosen by is not worse than on the hold-out, beyond the tolerance and beyond chance.",
    blocking=False,
)
ESTIMATE_AGREES = CheckRule(
    name="estimate_agrees",
    description="Where all labels are known, the performance estimated without them was right within its bounds or the tolerance.",
    blocking=False,
)
MISSING_VALUES = CheckRule(
    name="missing_values",
    description="No feature is missing more often than in the hold-out, beyond the limit and chance.",
    blocking=False,
)
UNSEEN_CATEGORIES = CheckRule(
    name="unseen_categories", description="Values that the model never saw in training are rare.", blocking=False
)
OUT_OF_RANGE = CheckRule(
    name="out_of_range", description="Numbers outside the range that the model saw in training are rare.", blocking=False
)
DUPLICATE_PREDICTIONS = CheckRule(name="duplicate_predictions", description="Each prediction is there once.", blocking=False)
CONSTANT_FEATURES = CheckRule(
    name="constant_features",
    description="No feature became constant or nearly constant that was not so in the hold-out.",
    blocking=False,
)
WINDOW_ROWS = CheckRule(
    name="window_rows", description="The window has about as many predictions a partition as the hold-out.", blocking=False
)
SCHEMA_CHANGE = CheckRule(
    name="schema_change",
    description="The predictions hold every feature of the model, in the type it was trained on.",
    blocking=False,
)
