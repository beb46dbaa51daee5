"""The history of assets in a branch: what Dagster recorded of materializations and checks in the environment that it is of.

Neither runs nor what is switched on are taken along: nothing goes on in a branch that began elsewhere.
"""

import contextlib
from pathlib import Path
from tempfile import SpooledTemporaryFile

from mlops_assets.core.settings import DAGSTER_DATABASE, Settings
from mlops_assets.operations.backup.databases import Moment, dump_database, restore_database

_EVENTS = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION", "ASSET_CHECK_EVALUATION")
_WHOLE = ("alembic_version", "secondary_indexes", "instance_info", "asset_keys", "dynamic_partitions")
_MEMORY_BYTES = 32 << 20

_ROWS = {
    "event_logs": f"dagster_event_type IN {_EVENTS}",
    "asset_event_tags": f"event_id IN (SELECT id FROM event_logs WHERE dagster_event_type IN {_EVENTS})",
    "asset_check_executions": "execution_status IN ('SUCCEEDED', 'FAILED')",
}
"""Tables of which some rows are copied, with their condition."""


def copy_history(production: Settings, branch: Settings, moment: Moment, scratch: Path) -> None:
    """Fill the empty database of Dagster of `branch` with the history of assets in `production` at the `moment`, by files in `scratch`."""
    import psycopg2

    read = moment.cursors[DAGSTER_DATABASE]
    read.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    empty = sorted({table for (table,) in read.fetchall()} - set(_WHOLE))
    dump_database(production, moment, DAGSTER_DATABASE, scratch, [f"--exclude-table-data=public.{table}" for table in empty])
    restore_database(branch, DAGSTER_DATABASE, scratch)
    target = psycopg2.connect(branch.postgres_connection_string(DAGSTER_DATABASE))
    with contextlib.closing(target), target, target.cursor() as written:
        for table in (table for table in _ROWS if table in empty):
            with SpooledTemporaryFile(_MEMORY_BYTES) as content:
                read.copy_expert(f"COPY (SELECT * FROM {table} WHERE {_ROWS[table]}) TO STDOUT (FORMAT binary)", content)
                content.seek(0)
                written.copy_expert(f"COPY {table} FROM STDIN (FORMAT binary)", content)
