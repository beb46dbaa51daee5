"""A scratch lake: a branch of the lake of an installation, in which the changed models are built."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlops_assets.core.errors import StackError
from mlops_assets.core.project import Project
from mlops_assets.core.settings import LAKE_DATABASE, Settings
from mlops_assets.feature_store.column_lineage import relation_name
from mlops_assets.features.dbt_package import dbt_profile_variables
from mlops_assets.features.dbt_translation import is_incremental
from mlops_assets.lake.branching import branch_catalog
from mlops_assets.lake.catalog_files import keep_files
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name
from mlops_assets.lake.tables import current_snapshot, table_exists
from mlops_assets.local.environment import process_environment
from mlops_assets.local.scratch_postgres import scratch_postgres
from mlops_assets.operations.review.build_plan import BuildPlan
from mlops_assets.runs.dbt_processes import start_dbt


@dataclass(frozen=True)
class ScratchLake:
    """A branch of a lake. `snapshot` is the state of production that it began with: later ones are the branch's own."""

    settings: Settings
    lake: Lake
    snapshot: int

    def build(self, project: Project, manifest: Any, plan: BuildPlan) -> None:
        """Build the models of `plan` for its days; all others are those of production. Raises StackError with what dbt says."""
        nodes = [manifest["nodes"][key] for key in plan.models]
        with self.lake.connect(read_only=False) as connection:
            for node in filter(is_incremental, nodes):
                # What was built by another rule stays readable at `snapshot`, and does not mix with what is built now.
                table = relation_name(node)
                if table_exists(connection, table):
                    connection.execute(f"DROP TABLE {lake_name(table)}")
        target = str(self.settings.home / "dbt")
        environment = {
            **process_environment(self.settings),
            **dbt_profile_variables(),
            "DBT_TARGET_PATH": target,
            "DBT_LOG_PATH": target,
        }
        arguments = [
            "build",
            "--resource-types",
            "model",
            "seed",
            "--select",
            *(f"fqn:{'.'.join(node['fqn'])}" for node in nodes),
        ]
        arguments += ["--event-time-start", plan.first.isoformat(), "--event-time-end", plan.end.isoformat()]
        process = start_dbt(arguments, directory=project.dbt_project, environment=environment)
        with process.stdout:
            output = process.stdout.read().decode()
        if process.wait() != 0:
            lines = output.strip().splitlines()
            raise StackError(
                "dbt cannot build the changed models:\n" + "\n".join(lines[-20:]), remedy="mlops check names every fault."
            )


@contextmanager
def scratch_lake(settings: Settings, folder: Path) -> Iterator[ScratchLake]:
    """Branch the lake of the installation into `folder` for the block. The installation is only read.

    Raises LakeError when its catalog cannot be opened, and StackError when a Postgres for the branch does not start.
    """
    production = Lake.from_settings(settings)
    production.connect(read_only=True).close()
    scratch = replace(
        settings,
        home=folder.resolve(),
        postgres_url=None,
        storage=None,
        # Of a branch that is itself reviewed, the files are where it reads them.
        branched_storage=settings.lake_location if settings.storage else settings.branched_storage,
    )
    scratch.lake_directory.mkdir(parents=True)
    with keep_files(production.catalog), scratch_postgres(scratch):
        branch_catalog(production.catalog, scratch.postgres_connection_string(LAKE_DATABASE), scratch.lake_directory)
        lake = Lake.from_settings(scratch)
        with lake.connect(read_only=True) as connection:
            snapshot = current_snapshot(connection)
        yield ScratchLake(scratch, lake, snapshot)
