"""Parts of a training frame: rows of frames with their split, in this process or another. No Dagster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from mlops_assets.feature_store.point_in_time import Frame


@dataclass(frozen=True)
class FrameParts:
    """The rows of frames inside a query that is `before` and `after` theirs."""

    before: str
    after: str

    @contextmanager
    def opened(self, connection: duckdb.DuckDBPyConnection, part: Frame) -> Iterator[str]:
        """SQL for the rows of `part`."""
        with part.opened(connection) as rows:
            yield f"{self.before}{rows}{self.after}"
