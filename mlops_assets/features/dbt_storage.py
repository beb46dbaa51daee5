"""The plugin of dbt-duckdb by which dbt may use the lake's files in object storage; on a local folder it does nothing."""

import os

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin

from mlops_assets.lake.object_secret import grant_lake


class Plugin(BasePlugin):
    """Called by dbt-duckdb with the connection, before the lake is attached."""

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Give the connection the right, in no text that dbt logs."""
        grant_lake(conn, os.environ["MLOPS_LAKE_DATA"] + "/", os.environ.get("MLOPS_LAKE_BRANCHED") or None)
