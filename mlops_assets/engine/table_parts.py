"""Parts of the rows of a table: read and computed where the engine is, and handed to one write of the lake."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import duckdb

from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, LAKE_DATABASE, Settings
from mlops_assets.engine.engine import Engine, EngineError
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.part_files import PartFile, PartFiles, PartTarget, part_target, write_part
from mlops_assets.lake.partition_range import PartitionRange

Part_contra = TypeVar("Part_contra", contravariant=True)
Part = TypeVar("Part")

_PARTS_A_PROCESSOR = 2
"""Parts that wait or run for each processor: one that is done finds the next."""


class PartRows(Protocol[Part_contra]):
    """The rows of any part. It is sent to other processes, so that it holds no connection."""

    def opened(self, connection: duckdb.DuckDBPyConnection, part: Part_contra) -> AbstractContextManager[str]:
        """SQL for the rows of `part`, to be run on `connection` once inside the block."""
        ...


@dataclass(frozen=True, kw_only=True)
class TableParts(Generic[Part]):
    """The rows of `parts`, in the range of partitions of a `table`. `uncounted` and `counted` as in `PartTarget`."""

    rows: PartRows[Part]
    parts: Sequence[Part]
    table: str
    partition_range: PartitionRange
    uncounted: str | None
    counted: str

    def computed(
        self, engine: Engine, lake: Lake, connection: duckdb.DuckDBPyConnection, settings: Settings
    ) -> Iterable[str] | PartFiles:
        """The rows as a write of `lake` takes them: queries on `connection`, or files that workers wrote into the lake's folder.

        A single part has nobody to share with, and stays in this process. Raises EngineError when the workers cannot reach the lake.
        """
        if engine.shares_process or len(self.parts) == 1:
            return self._queries(connection)
        require_reachable(engine, lake, settings)
        target = part_target(
            connection,
            table=self.table,
            data_path=lake.data_path,
            partition_range=self.partition_range,
            uncounted=self.uncounted,
            counted=self.counted,
        )
        written = engine.map(
            _Writing(lake, settings, target, self.rows, duckdb.__version__),
            self.parts,
            in_flight=_PARTS_A_PROCESSOR * engine.processors,
        )
        return PartFiles(target, list(written))

    def _queries(self, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
        for part in self.parts:
            with self.rows.opened(connection, part) as query:
                yield query


@dataclass(frozen=True)
class _Writing:
    """The work of a worker: the rows of a part into a file of the lake's folder."""

    lake: Lake
    settings: Settings
    target: PartTarget
    rows: PartRows[Any]
    duckdb_version: str

    def __call__(self, part: Any) -> PartFile:
        if duckdb.__version__ != self.duckdb_version:
            raise EngineError(
                f"A worker has DuckDB {duckdb.__version__}, the run {self.duckdb_version}: their fingerprints differ.",
                remedy="Install the same lock file, or the same image, on the nodes of the cluster.",
            )
        if self.settings.postgres_url:
            self.settings.postgres_connection_string(LAKE_DATABASE)  # keeps the password where the address of the catalog has it
        # Those of the worker's own environment.
        lake = replace(self.lake, extension_directory=DUCKDB_EXTENSION_DIRECTORY)
        with lake.connect(read_only=True) as connection:
            # Half of the task's: beside DuckDB are the model and the rows that it scores.
            connection.execute(f"SET memory_limit = '{self.settings.task_memory // 2}B'; SET threads = 1")
            with self.rows.opened(connection, part) as query:
                return write_part(connection, self.target, query)


def require_reachable(engine: Engine, lake: Lake, settings: Settings) -> None:
    """Raise EngineError when workers are on other machines, and the catalog or the files of the lake on this one alone."""
    elsewhere = engine.other_hosts()
    if not elsewhere:
        return
    missing = [
        *(() if settings.postgres_url else ("Its catalog is in the Postgres of the local stack: set MLOPS_POSTGRES_URL.",)),
        *(() if lake.storage else ("Its files are in a folder of this machine: set MLOPS_STORAGE.",)),
    ]
    if missing:
        raise EngineError(
            f"The Ray cluster has nodes on other machines ({', '.join(elsewhere[:3])}), which cannot reach the lake.",
            remedy=" ".join([*missing, "Or unset MLOPS_ENGINE, so that parts run here."]),
        )
