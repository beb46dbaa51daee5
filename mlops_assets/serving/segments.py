"""The choice of a bundle per row: that of its segment where the segment has a champion, the solution's for all others.

The one place that routes, for the batch asset and for the servers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlops_assets.schema.column_names import MODEL_VERSION
from mlops_assets.serving.bundle import Bundle, BundleError
from mlops_assets.serving.contract import Segment


@dataclass(frozen=True)
class Champions:
    """The bundles of one solution that predict: `default`, and one for each segment that has a champion of its own.

    Raises BundleError when a bundle of `segments` names no segment, or answers with other classes than `default`.
    """

    default: Bundle
    segments: Sequence[Bundle]

    def __post_init__(self) -> None:
        for bundle in self.segments:
            contract = bundle.contract
            if contract.segment is None:
                raise BundleError(f"Version {contract.version} of {contract.name} is the model of no segment.")
            if contract.classes != self.default.contract.classes:
                raise BundleError(
                    f"Version {contract.version} of {contract.name}, the champion of {contract.segment.value}, knows other classes than "
                    f"version {self.default.contract.version}: train both on the same labels, or roll one back."
                )

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """All of them, the default first."""
        return (self.default, *self.segments)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of the bundles, in their order."""
        return tuple(bundle.contract.version for bundle in self.bundles)

    def of(self, row: Mapping[str, Any]) -> Bundle:
        """The bundle that predicts `row`, which maps column to value."""
        return next((bundle for bundle in self.segments if _segment(bundle).holds(row)), self.default)

    def score(self, table: pa.Table) -> pa.Table:
        """Predict every row of `table`, in its order: the columns of `Bundle.score`, and `model_version`.

        Raises ValueError when a feature is missing from the table, KeyError when the column of a segment is.
        """
        chosen = self._chosen(table)
        parts, rows = [], []
        for number, bundle in enumerate(self.bundles):
            of_bundle = np.flatnonzero(chosen == number)
            # No rows at all still have columns.
            if len(of_bundle) or (number == 0 and not table.num_rows):
                whole = len(of_bundle) == table.num_rows
                scored = bundle.score(table if whole else table.take(_positions(of_bundle)))
                version = np.full(len(of_bundle), bundle.contract.version)
                parts.append(scored.append_column(MODEL_VERSION, _positions(version)))
                rows.append(of_bundle)
        scored = pa.concat_tables(parts)
        return scored if len(parts) == 1 else scored.take(_positions(np.argsort(np.concatenate(rows))))

    def _chosen(self, table: pa.Table) -> np.ndarray:
        """The position in `bundles` of the bundle of each row."""
        chosen = np.zeros(table.num_rows, dtype=np.int64)
        for number, bundle in enumerate(self.segments, start=1):
            segment = _segment(bundle)
            values = table.column(segment.column).cast(pa.string()).to_pylist()
            inside = np.fromiter((value == segment.value for value in values), dtype=bool, count=len(values))
            chosen[(chosen == 0) & inside] = number
        return chosen


def _segment(bundle: Bundle) -> Segment:
    segment = bundle.contract.segment
    assert segment is not None
    return segment


def _positions(values: np.ndarray) -> pa.Array:
    """An int64 array without importing pandas, which `pa.array` does."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values, dtype=np.int64))])
