"""Column names: those of the platform in each table that also has columns of the data, and the check that keeps the two apart.

The one place for them. DuckDB compares names without regard to the case of ASCII letters and renames the second of two equal ones to
`name_1` without an error: every SQL statement of the platform names its own columns with `internal`, which no data may use, or with
a name of this module, which data is refused at load.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from mlops_assets.schema.configuration_errors import ConfigurationError

INTERNAL_PREFIX: Final = "__mlops_"
"""Columns and aliases of the platform in staged and temporary relations begin with this; no column of the data may."""

LONGEST_NAME: Final = 128

LOADED_AT: Final = "_loaded_at"
"""When the run that loaded a row was created. Tables of the data carry it on."""
SOURCE: Final = "_source"

TRAINING_DATE: Final = "training_date"
SPLIT: Final = "split"
"""Of a training dataset: `train` or `holdout`."""
SEGMENT: Final = "segment"

PREDICTION_ID: Final = "prediction_id"
CHANNEL: Final = "channel"
ROLE: Final = "role"
MODEL_VERSION: Final = "model_version"
FEATURE_VIEWS: Final = "feature_views"
VIEW_FLAGS: Final = "view_flags"
SOURCE_SNAPSHOT: Final = "_source_snapshot"
VIEW_SNAPSHOTS: Final = "_view_snapshots"
SERVED_AT: Final = "served_at"
OUTPUTS: Final = ("score", "predicted_label", "value", "probabilities")
"""Columns of what a model answers."""

GENERATION: Final = "_generation"
"""Of a batch prediction: 1 for the first of its row, and one more each time that the row was scored again with another result."""
COUNTED: Final = "_counted"
"""Whether outcomes, reports and decisions see the prediction: of the generations of a row one at most."""
TRAINED_ON: Final = "_trained_on"
"""Whether the version was trained on the row, so that its prediction says nothing and never counts."""
SCORED_BY: Final = "_scored_by"
SCORED_BECAUSE: Final = "_scored_because"

MATURED: Final = "matured"

ROW_KEY: Final = "row_key"
"""Key of a spine whose YAML names none: made from the content of the row."""
SNAPSHOT_DATE: Final = "snapshot_date"
"""Of a spine without time, its partition: the day that its snapshot of the table stands for."""
SNAPSHOT_AT: Final = "snapshot_at"
LABELLED_AT: Final = "labelled_at"
HELD_OUT: Final = "held_out"
"""Of a spine without time: whether a labelled row is kept for evaluation, and not trained on; null without a label."""

REQUEST_ID: Final = "request_id"
FEATURES: Final = "features"

AUDIT_COLUMNS: Final = frozenset(
    {LOADED_AT, SOURCE, SOURCE_SNAPSHOT, VIEW_SNAPSHOTS, GENERATION, COUNTED, TRAINED_ON, SCORED_BY, SCORED_BECAUSE}
)
"""Columns that describe how a row got into its table; see `is_audit`."""

_KNOWN_SINCE_PREFIX, _KNOWN_SINCE_SUFFIX = "_", "_event_timestamp"

RESERVED: Final[Mapping[str, frozenset[str]]] = {
    "raw": frozenset({SOURCE, LOADED_AT}),
    "raw_rejects": frozenset({"reason", "row", "source", LOADED_AT}),
    "features": frozenset({LOADED_AT, SOURCE}),
    "training_dataset": frozenset({TRAINING_DATE, SPLIT, *AUDIT_COLUMNS}),
    "evaluation": frozenset({TRAINING_DATE, MODEL_VERSION, SEGMENT, *OUTPUTS, *AUDIT_COLUMNS}),
    "predictions": frozenset(
        {PREDICTION_ID, CHANNEL, ROLE, MODEL_VERSION, FEATURE_VIEWS, VIEW_FLAGS, SERVED_AT, *OUTPUTS, *AUDIT_COLUMNS}
    ),
    "outcomes": frozenset({PREDICTION_ID, CHANNEL, MODEL_VERSION, MATURED, *OUTPUTS, *AUDIT_COLUMNS}),
    "request": frozenset({REQUEST_ID, FEATURES}),
}
"""The platform's own columns by the kind of table, each beside columns of the data; `request` are the fields of a row of a request.

Of a feature view they are columns that are no features. The reports (drift, performance, data quality) hold names of the data as values
and so have no column of the data.
"""


def internal(name: str) -> str:
    """A name for a column or an alias of the platform in a staged or temporary relation."""
    return INTERNAL_PREFIX + name


def fold(name: str) -> str:
    """`name` as DuckDB compares it: ASCII letters in lower case, all others as they are."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def known_since_column(view: str) -> str:
    """The audit column that holds the event timestamp of the values taken from a feature view."""
    return f"{_KNOWN_SINCE_PREFIX}{view}{_KNOWN_SINCE_SUFFIX}"


def is_audit(column: str) -> bool:
    """Whether a column of one of the platform's tables describes how the row got there instead of what it says.

    Audit columns do not count when two versions of a row are compared. A leading underscore alone means nothing.
    """
    name = fold(column)
    if name in AUDIT_COLUMNS or name.startswith(INTERNAL_PREFIX):
        return True
    inner = name.removeprefix(_KNOWN_SINCE_PREFIX).removesuffix(_KNOWN_SINCE_SUFFIX)
    return bool(inner) and name == known_since_column(inner)


def audit_condition(name: str) -> str:
    """`is_audit` as SQL over the SQL expression `name`, for `COLUMNS(lambda name: ...)`."""
    listed = ", ".join(f"'{column}'" for column in sorted(AUDIT_COLUMNS))
    return (
        f"(lower({name}) IN ({listed}) OR starts_with(lower({name}), '{INTERNAL_PREFIX}') "
        f"OR regexp_full_match(lower({name}), '{_KNOWN_SINCE_PREFIX}.+{_KNOWN_SINCE_SUFFIX}', 's'))"
    )


def check_column_name(name: str, path: tuple[str | int, ...], *, place: str, reserved_for: Collection[str]) -> None:
    """Raise ConfigurationError at `path` when a column of the data may not be called `name`.

    `place` says where the column is declared, such as "the spine orders_spine"; `reserved_for` are the kinds of tables in `RESERVED`
    that will hold the column.
    """
    if problem := name_problem(name):
        raise ConfigurationError(path, f"{place}: the column {name!r} {problem}; rename it there")
    for kind in reserved_for:
        taken = RESERVED[kind]
        if fold(name) in taken or (is_audit(name) and kind != "request"):
            raise ConfigurationError(
                path,
                f"{place}: the column {name!r} has the name of a column of the platform ({kind}), whatever the case; rename it there. "
                f"Reserved in {kind}: {', '.join(sorted(taken))}, _<view>_event_timestamp, and what begins with {INTERNAL_PREFIX}",
            )


def name_problem(name: str) -> str | None:
    """What is wrong with a column name whatever the table, to follow the name in a sentence; None when it is right."""
    if not name.strip():
        return "has no name"
    if len(name) > LONGEST_NAME:
        return f"has a name of {len(name)} characters, which may have {LONGEST_NAME}"
    if name == "*":
        return "stands for all features in the reports"
    if not name.isprintable():
        return "has a control character in its name"
    if fold(name).startswith(INTERNAL_PREFIX):
        return f"begins with {INTERNAL_PREFIX}, which the platform keeps for itself"
    return None


def repeated(names: Iterable[str]) -> list[str]:
    """Those of `names` that DuckDB takes for the same as another one, in their order."""
    listed = list(names)
    counts = Counter(map(fold, listed))
    return [name for name in listed if counts[fold(name)] > 1]
