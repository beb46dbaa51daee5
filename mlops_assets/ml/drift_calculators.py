"""NannyML's calculators, fitted on a reference frame and applied to windows: the only module that imports NannyML.

Frames come prepared from `drift.py`: sorted by an integer index that numbers the reference's chunks or the windows.
"""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.ml.drift_result import ALL_FEATURES, RECONSTRUCTION_ERROR, DriftRow, DriftSettings
from mlops_assets.ml.matrix import FeatureSchema

if TYPE_CHECKING:
    import pandas as pd


def univariate_rows(
    reference: "pd.DataFrame",
    frame: "pd.DataFrame",
    schema: FeatureSchema,
    known: list[str],
    settings: DriftSettings,
    names: list[str],
) -> list[DriftRow]:
    """The distances of each feature of `schema` in each window; `known` are the features with a value in the reference.

    Raises ValueError when NannyML fails on a feature that has values on both sides (NannyML itself logs and goes on).
    """
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
                effect = value if method != "wasserstein" else value / scale if scale > 0 else None
                alert = bool(cell["alert"]) and (effect is None or effect >= settings.effect_floors[method])
                lower, upper = _number(cell["lower_threshold"]), _number(cell["upper_threshold"])
                rows.append(DriftRow(window, feature, method, value, lower, upper, effect, alert))
    return rows


def reconstruction_rows(
    reference: "pd.DataFrame", frame: "pd.DataFrame", features: list[str], settings: DriftSettings, names: list[str]
) -> list[DriftRow]:
    """The error of reconstructing the rows of each window from the principal components of the reference's `features`."""
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
        effect = abs(value - usual) / usual if usual > 0 else None
        alert = bool(cell["alert"]) and (effect is None or effect >= settings.effect_floors[RECONSTRUCTION_ERROR])
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
