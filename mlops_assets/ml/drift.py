"""Drift of features between a reference and later windows, by NannyML: per feature, and of all together.

One fit serves all windows. NannyML's own thresholds (three standard deviations of the reference's chunks) alert on
stationary data too, so an alert here also needs an effect: see `DriftSettings.effect_floors`. Whether alerts call for a
retraining is decided elsewhere.
"""

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlops_assets.ml.matrix import FeatureSchema, to_frame

if TYPE_CHECKING:
    import pandas as pd

ALL_FEATURES = "*"
RECONSTRUCTION_ERROR = "reconstruction_error"
OTHER_CATEGORY = "(other)"


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """How drift is measured, and when it alerts.

    `continuous_methods` and `categorical_methods` are NannyML's names. `effect_floors` gives, per method, the least effect of
    an alert: the distance itself (Jensen-Shannon and others from 0 to 1), for `wasserstein` the distance in standard
    deviations of the reference, for `reconstruction_error` the relative change of the reference's mean error.
    `reference_chunks` pieces of the reference, in its row order, give the thresholds where no chunk column does.
    A categorical feature with more than `maximum_categories` values in the reference keeps the most frequent ones; the
    others, and values never seen, count as one, because rare values differ between any two samples. Such a feature is left
    out of the reconstruction error, whose encoding by frequency says nothing about it.
    At most `maximum_rows` rows per window and of the reference are read, those whose key has the lowest hash; None reads all.
    """

    continuous_methods: tuple[str, ...] = ("jensen_shannon",)
    categorical_methods: tuple[str, ...] = ("jensen_shannon",)
    effect_floors: Mapping[str, float] = field(
        default_factory=lambda: {"jensen_shannon": 0.1, "wasserstein": 0.1, RECONSTRUCTION_ERROR: 0.05}
    )
    reference_chunks: int = 10
    maximum_categories: int = 100
    maximum_rows: int | None = None


@dataclass(frozen=True)
class DriftRow:
    """One measure of one window.

    `feature` is "*" for the reconstruction error. `value` is None when the window or the reference holds no value of the
    feature; such a row alerts when only one of them does. `effect` is what the effect floor is compared with.
    """

    window: str
    feature: str
    method: str
    value: float | None
    lower_threshold: float | None
    upper_threshold: float | None
    effect: float | None
    alert: bool


@dataclass(frozen=True)
class DriftResult:
    """All measures of all windows, in window order, with what they were computed from."""

    rows: tuple[DriftRow, ...]
    reference_rows: int
    window_rows: Mapping[str, int]
    collapsed_features: tuple[str, ...]
    excluded_from_reconstruction: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain lists and dictionaries, for JSON."""
        return asdict(self)

    def to_arrow(self) -> pa.Table:
        """The rows as a table with the columns of `DriftRow`."""
        return pa.Table.from_pylist([asdict(row) for row in self.rows], schema=_ROW_SCHEMA)

    def of_window(self, window: str) -> tuple[DriftRow, ...]:
        """The rows of one window."""
        return tuple(row for row in self.rows if row.window == window)


_ROW_SCHEMA = pa.schema(
    [
        ("window", pa.string()),
        ("feature", pa.string()),
        ("method", pa.string()),
        ("value", pa.float64()),
        ("lower_threshold", pa.float64()),
        ("upper_threshold", pa.float64()),
        ("effect", pa.float64()),
        ("alert", pa.bool_()),
    ]
)


def compute_drift(
    *,
    reference: pa.Table,
    windows: Sequence[tuple[str, pa.Table]],
    schema: FeatureSchema,
    settings: DriftSettings,
    reference_chunk_column: str | None,
    key_column: str | None,
) -> DriftResult:
    """Measure the drift of each of `windows` (name and rows) from `reference`.

    `reference_chunk_column` names a column of the reference whose values (such as the week) cut it into the chunks that
    give the thresholds; with None the chunks are equal pieces in row order, so order the rows by time, or shuffle them where
    the order of the source has no meaning. `key_column` identifies rows and is needed with `settings.maximum_rows`.
    Infinite numbers count as missing. Raises ValueError on an empty reference or window, windows of the same name, a
    reference that gives fewer than two chunks, and a method without effect floor.
    """
    names = [name for name, _ in windows]
    _check(reference, windows, names, settings)
    reference = _sample(reference, key_column, settings.maximum_rows)
    sampled = [_sample(table, key_column, settings.maximum_rows) for _, table in windows]
    reference_frame = _finite(to_frame(reference, schema), schema)
    codes = _chunk_codes(reference, reference_chunk_column, settings.reference_chunks)
    # Stable: within a chunk, and between equal pieces, the row order stays.
    reference_frame = reference_frame.iloc[np.argsort(codes, kind="stable")].set_axis(np.sort(codes), axis=0)
    frame = _finite(to_frame(pa.concat_tables([table.select(list(schema.names)) for table in sampled]), schema), schema)
    frame.index = np.repeat(np.arange(len(sampled)), [table.num_rows for table in sampled])
    collapsed = _collapse_rare(reference_frame, frame, schema, settings.maximum_categories)
    known = [name for name in schema.names if reference_frame[name].notna().any()]
    univariate = _univariate(reference_frame, frame, schema, known, settings, names)
    together = [name for name in known if name not in collapsed]
    multivariate = _reconstruction(reference_frame, frame, together, settings, names) if len(together) > 1 else []
    order = {name: position for position, name in enumerate(names)}
    return DriftResult(
        rows=tuple(sorted([*univariate, *multivariate], key=lambda row: order[row.window])),
        reference_rows=reference.num_rows,
        window_rows={name: table.num_rows for name, table in zip(names, sampled, strict=True)},
        collapsed_features=collapsed,
        excluded_from_reconstruction=tuple(name for name in schema.names if name not in together),
    )


def _check(reference: pa.Table, windows: Sequence[tuple[str, pa.Table]], names: list[str], settings: DriftSettings) -> None:
    if not windows or len(set(names)) < len(names):
        raise ValueError(f"Drift needs at least one window, and names that differ; got {names}.")
    empty = ["the reference"] if reference.num_rows == 0 else []
    empty += [f"window {name}" for name, table in windows if table.num_rows == 0]
    if empty:
        raise ValueError(f"No rows in {', '.join(empty)}: drift of nothing cannot be measured.")
    methods = {*settings.continuous_methods, *settings.categorical_methods, RECONSTRUCTION_ERROR}
    without = sorted(methods - set(settings.effect_floors))
    if without:
        raise ValueError(f"effect_floors has no floor of {', '.join(without)}: add one (0 alerts on NannyML's threshold alone).")


def _sample(table: pa.Table, key_column: str | None, maximum_rows: int | None) -> pa.Table:
    if maximum_rows is None or table.num_rows <= maximum_rows:
        return table
    if key_column is None:
        raise ValueError("maximum_rows needs a key_column, whose hash says which rows are read.")
    from pandas.util import hash_array

    hashes = hash_array(table.column(key_column).cast(pa.string()).to_numpy(zero_copy_only=False).astype(object))
    chosen = np.sort(np.argsort(hashes, kind="stable")[:maximum_rows])
    return table.take(pa.array(chosen))


def _finite(frame: "pd.DataFrame", schema: FeatureSchema) -> "pd.DataFrame":
    for name in schema.numeric:
        values = frame[name].to_numpy(dtype=np.float64)
        frame[name] = np.where(np.isfinite(values), values, np.nan)
    return frame


def _chunk_codes(reference: pa.Table, column: str | None, pieces: int) -> np.ndarray:
    if column is None:
        codes = np.arange(reference.num_rows) * min(pieces, reference.num_rows) // reference.num_rows
    else:
        codes = np.unique(
            reference.column(column).cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False), return_inverse=True
        )[1]
    if codes.max() < 1:
        raise ValueError("The reference gives one chunk, which has no spread to set a threshold from: give it two or more.")
    return codes


def _collapse_rare(
    reference: "pd.DataFrame", frame: "pd.DataFrame", schema: FeatureSchema, maximum_categories: int
) -> tuple[str, ...]:
    collapsed = []
    for name in schema.categorical:
        counts = reference[name].value_counts()
        if len(counts) > maximum_categories:
            # By count, then by name: ties do not depend on the row order.
            ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
            kept = {value for value, _ in ranked[:maximum_categories]}
            for each in (reference, frame):
                each[name] = each[name].where(each[name].isin(kept), OTHER_CATEGORY)
            collapsed.append(name)
    return tuple(collapsed)


def _univariate(
    reference: "pd.DataFrame",
    frame: "pd.DataFrame",
    schema: FeatureSchema,
    known: list[str],
    settings: DriftSettings,
    names: list[str],
) -> list[DriftRow]:
    nannyml = _nannyml()
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=known,
        treat_as_categorical=[name for name in schema.categorical if name in known],
        chunker=_index_chunker(),
        continuous_methods=list(settings.continuous_methods),
        categorical_methods=list(settings.categorical_methods),
    )
    rows = []
    with _quiet():
        data = calculator.fit(reference).calculate(frame).filter(period="analysis").data.sort_index(axis=1)
    for feature in schema.names:
        methods = settings.categorical_methods if feature in schema.categorical else settings.continuous_methods
        scale = float(reference[feature].std()) if feature in schema.numeric else 0.0
        present = frame[feature].notna().groupby(frame.index).any()
        for method in methods:
            for position, window in enumerate(names):
                if feature not in known or not present[position]:
                    alert = bool(present[position]) != (feature in known)
                    rows.append(DriftRow(window, feature, method, None, None, None, None, alert))
                    continue
                cell = data[(feature, method)].iloc[position]
                value = float(cell["value"])
                if math.isnan(value):
                    raise ValueError(f"NannyML could not compute {method} of {feature!r} in window {window}: see its log.")
                # A constant reference has no deviation to measure in: any distance from it is an effect.
                effect = (
                    value
                    if method != "wasserstein"
                    else value / scale
                    if scale > 0
                    else math.copysign(math.inf, value)
                    if value
                    else 0.0
                )
                alert = bool(cell["alert"]) and effect >= settings.effect_floors[method]
                lower, upper = _number(cell["lower_threshold"]), _number(cell["upper_threshold"])
                rows.append(DriftRow(window, feature, method, value, lower, upper, effect, alert))
    return rows


def _reconstruction(
    reference: "pd.DataFrame", frame: "pd.DataFrame", features: list[str], settings: DriftSettings, names: list[str]
) -> list[DriftRow]:
    nannyml = _nannyml()
    calculator = nannyml.DataReconstructionDriftCalculator(column_names=features, chunker=_index_chunker())
    with _quiet():
        result = calculator.fit(reference[features]).calculate(frame[features])
    data = result.data[RECONSTRUCTION_ERROR]
    fitted = result.data[("chunk", "period")] == "reference"
    usual = float(data.loc[fitted, "value"].mean())
    rows = []
    for window, (_, cell) in zip(names, data.loc[~fitted].iterrows(), strict=True):
        value = float(cell["value"])
        effect = abs(value - usual) / usual if usual > 0 else 0.0 if value == usual else math.inf
        alert = bool(cell["alert"]) and effect >= settings.effect_floors[RECONSTRUCTION_ERROR]
        lower, upper = _number(cell["lower_threshold"]), _number(cell["upper_threshold"])
        rows.append(DriftRow(window, ALL_FEATURES, RECONSTRUCTION_ERROR, value, lower, upper, effect, alert))
    return rows


def _nannyml() -> Any:
    # Read at every call; without it NannyML sends each use to a host of its maker.
    os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
    import nannyml

    return nannyml


def _index_chunker() -> Any:
    """A chunker that cuts a frame where its sorted integer index changes.

    NannyML's own chunkers cut by count or by calendar; it hands the chunker one column at a time, so only the index can say
    to which window a row belongs.
    """
    nannyml = _nannyml()

    class IndexChunker(nannyml.Chunker):  # type: ignore[name-defined]
        def _split(self, data: "pd.DataFrame") -> list[Any]:
            index = data.index.to_numpy()
            starts = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
            ends = np.r_[starts[1:], len(index)]
            return [
                nannyml.Chunk(key=str(index[start]), data=data.iloc[start:end]) for start, end in zip(starts, ends, strict=True)
            ]

    return IndexChunker()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of NannyML's code that say nothing about the data: few chunks, and writing to its own slices."""
    from pandas.errors import PerformanceWarning, SettingWithCopyWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The resulting number of chunks is too low")
        for category in (SettingWithCopyWarning, PerformanceWarning):
            warnings.simplefilter("ignore", category)
        yield


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
