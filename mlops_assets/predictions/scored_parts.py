"""Parts of a batch prediction: rows of a frame with what the bundles answer, in this process or another. No Dagster."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import duckdb

from mlops_assets.core.prediction_columns import prediction_columns
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.point_in_time import Frame
from mlops_assets.schema.column_names import MODEL_VERSION

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.serving.segments import Champions

BATCH_ROWS = 20_000
"""Rows that are scored at once."""

SCORED = "scored_rows"
"""The view of the rows of a part with their predictions."""


@dataclass(frozen=True)
class BundleReference:
    """The identity of a bundle of a solution, with the SHA-256 of its files by name, from its signed record."""

    version: int
    sha256: str
    files: Mapping[str, str] = field(compare=False)


@dataclass(frozen=True)
class StoredChampions:
    """The bundles of the champions of a `solution` in the store of the settings: the solution's first, then those of segments."""

    settings: Settings = field(compare=False)
    solution: str
    references: tuple[BundleReference, ...]

    def load(self) -> "Champions":
        """The bundles, verified. Raises BundleError when the store lacks one, or has another."""
        from mlops_assets.serving.bundle import BundleError
        from mlops_assets.serving.bundle_loading import load_bundle
        from mlops_assets.serving.bundle_store import StoredBundle, open_bundle_store
        from mlops_assets.serving.segments import Champions

        store, bundles = open_bundle_store(self.settings).of(self.solution), []
        with store.using():
            for reference in self.references:
                folder = store.get(StoredBundle(reference.version, reference.sha256))
                if folder is None:
                    raise BundleError(
                        f"Version {reference.version} of {self.solution} is not in the store of bundles that this machine sees: workers of "
                        "other machines need MLOPS_STORAGE, or a store of your own that they reach (MLOPS_BUNDLE_STORE)."
                    )
                bundles.append(load_bundle(folder, reference.files, threads=1))
        return Champions(bundles[0], bundles[1:])


@lru_cache(maxsize=1)
def _load_once(stored: StoredChampions) -> "Champions":
    """The bundles for all parts that a process is given."""
    return stored.load()


@dataclass(frozen=True)
class ScoredParts:
    """The rows of frames with the predictions of `champions`, in the form of `query`, which reads the view `SCORED`.

    Another process gets where the bundles are, `stored`, and loads them once.
    """

    query: str
    stored: StoredChampions
    loaded: "Champions | None" = field(default=None, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded bundles here: sessions of ONNX Runtime do not travel."""
        return {"query": self.query, "stored": self.stored, "loaded": None}

    @property
    def _champions(self) -> "Champions":
        return self.loaded or _load_once(self.stored)

    @contextmanager
    def opened(self, connection: duckdb.DuckDBPyConnection, part: Frame) -> Iterator[str]:
        """SQL for the rows of `part`, which are read, scored and handed on in batches of `BATCH_ROWS`: memory does not grow with them."""
        import pyarrow as pa

        # A connection of its own: one that is being read from can do nothing else.
        with connection.cursor() as reading:
            reading.execute("SET TimeZone = 'UTC'")
            with part.opened(reading) as rows:
                batches = reading.execute(rows).to_arrow_reader(BATCH_ROWS)
                empty = _with_predictions(batches.schema.empty_table(), self._champions)
                scored = (
                    scored
                    for batch in batches
                    for scored in _with_predictions(pa.Table.from_batches([batch]), self._champions).combine_chunks().to_batches()
                )
                connection.register(SCORED, pa.RecordBatchReader.from_batches(empty.schema, scored))
                yield self.query


def _with_predictions(frame: "pa.Table", predicting: "Champions") -> "pa.Table":
    scored = predicting.score(frame)
    for name in (MODEL_VERSION, *prediction_columns(scored)):
        frame = frame.append_column(name, scored.column(name))
    return frame
