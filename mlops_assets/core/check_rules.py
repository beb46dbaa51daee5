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
    def from_result(cls, result: dg.AssetCheckResult, partition: str) -> Self:
        """`result` as that of `partition`."""
        outcome = cls(**result._asdict())
        outcome.partition = partition
        return outcome


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The metadata of a result that prove it, by name: what was `measured`, the `bound`, and `examples` of what failed.

    A check of a whole, of which no row or value is an example, has none; `no_examples` tells why. Raises ValueError when a part is lacking.
    """

    measured: tuple[str, ...]
    bound: tuple[str, ...]
    examples: tuple[str, ...] = ()
    no_examples: str = ""

    def __post_init__(self) -> None:
        if not self.measured or not self.bound or bool(self.examples) == bool(self.no_examples):
            raise ValueError(
                f"{self}: name what is measured and its bound, and either the examples of a failure or why there are none"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All names of metadata."""
        return (*self.measured, *self.bound, *self.examples)


@dataclass(frozen=True)
class CheckRule:
    """Name, meaning and consequence of one check: `blocking` stops downstream assets, otherwise a failure is a warning."""

    name: str
    description: str
    blocking: bool
    evidence: Evidence

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
        """The outcome, with the evidence. Raises ValueError when `metadata` lacks a part of it."""
        if lacking := [name for name in self.evidence.names if name not in metadata]:
            raise ValueError(f"The result of the check {self.name} lacks its evidence: {', '.join(lacking)}.")
        if not passed and self.evidence.no_examples:
            metadata = {**metadata, "no_examples": self.evidence.no_examples}
        return dg.AssetCheckResult(
            check_name=self.name,
            asset_key=key,
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR if self.blocking else dg.AssetCheckSeverity.WARN,
            metadata=metadata,
            description=description,
        )


# training_dataset
SCHEMA = CheckRule(
    name="schema",
    description="Every column has the type and the values that are stated of it (pandera).",
    blocking=True,
    evidence=Evidence(measured=("columns",), bound=("maximum_failures",), examples=("failures",)),
)
ROW_COUNT = CheckRule(
    name="row_count",
    description="There are enough rows to train and to evaluate on.",
    blocking=True,
    evidence=Evidence(
        measured=("train", "holdout"),
        bound=("minimum_train", "minimum_holdout"),
        no_examples="Rows that are lacking cannot be shown.",
    ),
)
DUPLICATES = CheckRule(
    name="duplicates",
    description="Each key occurs once.",
    blocking=True,
    evidence=Evidence(measured=("keys_more_than_once", "rows_with_such_keys"), bound=("maximum",), examples=("examples",)),
)
MISSING = CheckRule(
    name="missing",
    description="No feature is missing more often than the limit, in all rows and in the training rows alone.",
    blocking=True,
    evidence=Evidence(measured=("share_by_feature", "share_of_training_rows"), bound=("limit",), examples=("above_limit",)),
)
CONSTANT = CheckRule(
    name="constant_columns",
    description="No feature is constant or nearly constant over the training rows.",
    blocking=False,
    evidence=Evidence(measured=("features",), bound=("limit",), examples=("share_of_most_frequent_value",)),
)
LABEL_RATE = CheckRule(
    name="label_rate",
    description="The label takes several values, and its rate is within the bounds.",
    blocking=True,
    evidence=Evidence(
        measured=("mean_by_split", "distinct_labels"),
        bound=("bounds", "least_distinct_labels"),
        no_examples="The rate is of all rows of a split.",
    ),
)
LEAKAGE = CheckRule(
    name="leakage_guard",
    description="No feature was known only after the prediction, no label only after training, and no feature gives the label away.",
    blocking=True,
    evidence=Evidence(
        measured=("strongest_correlations", "strongest_correlation_ratios"),
        bound=("limit",),
        examples=("rows_with_knowledge_of_the_future", "keys_of_such_rows", "features_that_give_the_label_away"),
    ),
)

# model
ONNX_PARITY = CheckRule(
    name="onnx_parity",
    description="The ONNX bundle predicts what the scikit-learn pipeline predicts, on real rows.",
    blocking=False,
    evidence=Evidence(
        measured=("largest_difference", "changed_by_float32", "mean_change_by_float32", "rows"),
        bound=("limit", "limit_changed_by_float32"),
        no_examples="A version keeps the differences of its hold-out, not the rows: the same rows are compared when it is fitted again.",
    ),
)

# online_features
ONLINE_OFFLINE_PARITY = CheckRule(
    name="online_offline_parity",
    description="The online store holds what the point-in-time join of the lake gives, stale or not, for entities of the newest rows.",
    blocking=True,
    evidence=Evidence(
        measured=("compared_values", "differences"), bound=("maximum_differences",), examples=("first_differences",)
    ),
)

# deployment, predictions, outcomes
CHAMPION_DEPLOYED = CheckRule(
    name="champion_deployed",
    description="The serving folder holds the registry's champion, unaltered.",
    blocking=True,
    evidence=Evidence(measured=("serving_folder",), bound=("registry",), no_examples="A folder holds one version and no rows."),
)
SERVED_VERSION = CheckRule(
    name="served_version",
    description="Every running server process answers with the registry's champion, and those of its segments.",
    blocking=False,
    evidence=Evidence(measured=("processes",), bound=("registry", "patience_seconds"), examples=("faults",)),
)
COMPLETE = CheckRule(
    name="complete",
    description="Every row of the spine has exactly one prediction that counts, or its version was trained on it.",
    blocking=True,
    evidence=Evidence(
        measured=("rows", "without_exactly_one_prediction"), bound=("maximum", "least_rows_of_the_run"), examples=("examples",)
    ),
)
FINITE = CheckRule(
    name="finite_scores",
    description="Every prediction is a finite number.",
    blocking=True,
    evidence=Evidence(measured=("not_finite",), bound=("maximum_not_finite",), examples=("examples",)),
)
FRESH_FEATURES = CheckRule(
    name="fresh_features",
    description="In no partition were the values of a feature view too old for many predictions, or older than the solution accepts.",
    blocking=False,
    evidence=Evidence(measured=("share_too_old",), bound=("limit",), examples=("examples",)),
)
LOGGED_ONCE = CheckRule(
    name="logged_once",
    description="No prediction of a server is in the lake twice.",
    blocking=False,
    evidence=Evidence(measured=("rows", "more_than_once"), bound=("maximum_more_than_once",), examples=("examples",)),
)
LOG_ACCEPTED = CheckRule(
    name="log_accepted",
    description="Every record of the prediction log could be taken into the lake; the others are in the stream of rejects.",
    blocking=False,
    evidence=Evidence(measured=("accepted", "rejected"), bound=("maximum_rejected",), examples=("reasons",)),
)
WITHIN_PARTITIONS = CheckRule(
    name="within_partitions",
    description="Every prediction of the log is of a day that a partition of the solution holds; no report covers the others.",
    blocking=False,
    evidence=Evidence(measured=("rows", "outside"), bound=("maximum_outside",), examples=("examples",)),
)
LABELS_MATURED = CheckRule(
    name="labels_matured",
    description="The share of predictions whose outcome is known is as expected.",
    blocking=False,
    evidence=Evidence(measured=("share", "matured", "predictions"), bound=("expected",), examples=("examples",)),
)

# reports on a monitoring window
FINDINGS = Evidence(measured=("measured", "alerts"), bound=("maximum_alerts",), examples=("examples",))
"""Evidence of checks that evaluate one measure after another, and count those that alert."""
DRIFT = CheckRule(
    name="drift",
    description="The share of drifted features stays below the limit in every window.",
    blocking=False,
    evidence=Evidence(measured=("share_of_features", "features_with_alert"), bound=("limit",), examples=("examples",)),
)
PERFORMANCE = CheckRule(
    name="performance",
    description="No metric is worse than on the hold-out by what matters, beyond chance and usual differences, or below a floor of the gates.",
    blocking=False,
    evidence=Evidence(
        measured=("windows", "metrics_with_alert"),
        bound=("threshold",),
        no_examples="A metric is of all rows of the window; `mlops debug` shows those that it is worst on.",
    ),
)
ESTIMATE_AGREES = CheckRule(
    name="estimate_agrees",
    description="Where all labels are known, the performance estimated without them was right within its bounds, or by less than matters.",
    blocking=False,
    evidence=Evidence(
        measured=("realised_minus_estimated", "windows"),
        bound=("tolerance",),
        no_examples="An estimate is of all rows of the window.",
    ),
)
MISSING_VALUES = CheckRule(
    name="missing_values",
    description="No feature is missing more often than in the hold-out, beyond the limit and chance.",
    blocking=False,
    evidence=FINDINGS,
)
UNSEEN_CATEGORIES = CheckRule(
    name="unseen_categories",
    description="Values that the model never saw in training are rare.",
    blocking=False,
    evidence=FINDINGS,
)
OUT_OF_RANGE = CheckRule(
    name="out_of_range",
    description="Numbers outside the range that the model saw in training are rare.",
    blocking=False,
    evidence=FINDINGS,
)
DUPLICATE_PREDICTIONS = CheckRule(
    name="duplicate_predictions",
    description="Each prediction is there once.",
    blocking=False,
    evidence=FINDINGS,
)
CONSTANT_FEATURES = CheckRule(
    name="constant_features",
    description="No feature became constant or nearly constant that was not so in the hold-out.",
    blocking=False,
    evidence=FINDINGS,
)
WINDOW_ROWS = CheckRule(
    name="window_rows",
    description="The window has about as many predictions a partition as the hold-out.",
    blocking=False,
    evidence=FINDINGS,
)
SCHEMA_CHANGE = CheckRule(
    name="schema_change",
    description="The predictions hold every feature of the model, in the type it was trained on.",
    blocking=False,
    evidence=FINDINGS,
)
