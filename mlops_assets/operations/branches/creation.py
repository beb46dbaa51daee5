"""What a new branch begins with: a branch of the lake, the registry, the history of assets and the online store of an environment.

The environment is read at one moment, by transactions that can write nothing.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import LAKE_DATABASE, Settings
from mlops_assets.lake.branching import copy_catalog
from mlops_assets.lake.catalog_files import keep_files
from mlops_assets.local import control, postgres, preflight
from mlops_assets.local.scratch_postgres import scratch_postgres
from mlops_assets.local.supervisor import Supervisor
from mlops_assets.local.version_log import version_log
from mlops_assets.online_store import lmdb_store
from mlops_assets.operations.backup.databases import one_moment
from mlops_assets.operations.branches.history import copy_history
from mlops_assets.operations.branches.registry import CopiedRegistry, copy_registry

_SNAPSHOT = "SELECT max(snapshot_id) FROM ducklake_snapshot"


@dataclass(frozen=True)
class Beginning:
    """What a branch begins with: the snapshot of the lake, and the registry."""

    snapshot: int
    registry: CopiedRegistry


def fill_branch(production: Settings, branch: Settings, report: Callable[[str], None]) -> Beginning:
    """Fill the state folder of `branch`, which does not exist, from `production`, whose Postgres is started for it where it does not run.

    `check_environment` has been called.
    """
    preflight.check_home(branch, preflight.MINIMUM_FREE_BYTES)
    branch.lake_directory.mkdir()
    if production.redis_url is None:
        # First: it must not be newer than the lake, and gets what changed since its snapshot.
        lmdb_store.copy_files(production.online_store_directory, branch.online_store_directory)
    with tempfile.TemporaryDirectory(dir=branch.home, prefix="copied.") as scratch, _running_postgres(production, report):
        catalog = production.postgres_connection_string(LAKE_DATABASE)
        with keep_files(catalog), scratch_postgres(branch), one_moment(production) as moment:
            postgres.create_databases(branch)
            report("Branching the lake")
            copy_catalog(moment.lake, branch.postgres_connection_string(LAKE_DATABASE), branch.lake_directory)
            moment.lake.execute(_SNAPSHOT)
            [(snapshot,)] = moment.lake.fetchall()
            report("Copying the registry")
            registry = copy_registry(production, branch, moment, Path(scratch))
            report("Copying the history of assets")
            copy_history(production, branch, moment, Path(scratch))
    if version_log(production).exists():
        # Whoever starts the branch is told when its state is older or newer than the code.
        shutil.copyfile(version_log(production), version_log(branch))
    return Beginning(int(snapshot), registry)


def check_environment(production: Settings) -> None:
    """Raise StackError when there is no such installation, or parts of it are where a branch cannot copy them."""
    if production.mlflow_server is not None:
        raise StackError(
            "A branch copies the database of the environment's own MLflow, and MLOPS_MLFLOW_URL names another server.",
            remedy="mlops diff shows what a change does without a branch.",
        )
    preflight.check_installation(production)


@contextlib.contextmanager
def _running_postgres(production: Settings, report: Callable[[str], None]) -> Iterator[None]:
    if production.postgres_url is not None or Supervisor(production).is_running():
        yield
        return
    report("Starting the Postgres of the environment")
    with control.storage(production):
        yield
