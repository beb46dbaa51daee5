"""dbt models as one Dagster op: its specs, the dbt call, and the row counts of what it built. Configuration goes elsewhere."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import dagster as dg
import duckdb
from packaging.version import Version

from mlops_assets.core.conditions import ON_NEW_INPUTS
from mlops_assets.core.freshness import cadence_freshness
from mlops_assets.core.keys import table_key, table_name
from mlops_assets.core.origin import with_origin
from mlops_assets.core.patience import LOST_CONNECTION
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.column_lineage import table_columns, value_sources
from mlops_assets.feature_store.registry import FeatureRegistry, FeatureView, feature_view
from mlops_assets.feature_store.usage import ViewUse, declared_solutions, view_uses
from mlops_assets.features.contract_checks import DbtContext, check_contracts
from mlops_assets.features.contracts import CONTRACT
from mlops_assets.features.dagster_dbt import (
    DAGSTER_DBT_UNIQUE_ID_METADATA_KEY,
    DagsterDbtCliRuntimeError,
    DbtCliInvocation,
    DbtProject,
    get_updated_cli_invocation_params_for_context,
    validate_manifest,
)
from mlops_assets.features.dbt_package import dbt_profile_variables
from mlops_assets.features.dbt_schemas import follow_contracts
from mlops_assets.features.dbt_translation import LakeTranslator, Node, describe_view, is_incremental, partition_column
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.lake.tables import (
    column_types,
    counted_fingerprint,
    current_snapshot,
    partition_fingerprints,
    query_value,
    row_hash,
)
from mlops_assets.runs.dbt_processes import start_dbt
from mlops_assets.runs.slots import DBT, SLOTS_TAG
from mlops_assets.schema.cadence import Cadence
from mlops_assets.schema.column_names import is_audit
from mlops_assets.schema.remembering import remembered
from mlops_assets.stages.column_lineage import column_lineage
from mlops_assets.stages.execution import RETRIES, permanent_failure, record_partitions
from mlops_assets.stages.faults import step

POOL = "dbt"
"""One dbt call at a time: two that create the same table at once would replace each other's."""

# What dbt and DuckLake say when another writer came first or the catalog was away for a moment.
_TRANSIENT = (
    "failed with exit code `-",  # ended by a signal
    "Transaction conflict",
    "TransactionContext Error",
    "Failed to commit DuckLake",
    "could not connect",
)

_PARSED_PROJECT = "partial_parse.msgpack"
_ASSETS = ("model", "seed", "snapshot")


@dataclass(frozen=True)
class DbtSelection:
    """The nodes of a dbt project that have one tag, with the partitions of the incremental ones and metadata of all assets."""

    project: DbtProject
    tag: str
    partitions: dg.TimeWindowPartitionsDefinition
    cadence: Cadence
    origin: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def manifest(self) -> Node:
        """The parsed project, as `mlops prepare` left it."""
        return validate_manifest(self.project.manifest_path)

    @cached_property
    def translator(self) -> LakeTranslator:
        """How the nodes look in Dagster."""
        return LakeTranslator(self.manifest, self.partitions, self.cadence, self.tag)

    @cached_property
    def nodes(self) -> Mapping[dg.AssetKey, Node]:
        """Asset key -> node of the models and seeds with the tag."""
        return {
            self.translator.get_asset_key(node): node
            for node in self.manifest["nodes"].values()
            if node["resource_type"] in _ASSETS and self.tag in node["tags"]
        }

    @cached_property
    def views(self) -> Mapping[dg.AssetKey, FeatureView]:
        """Asset key -> feature view, of the models that are one. Raises FeatureViewError."""
        return {key: feature_view(node) for key, node in self.nodes.items() if _is_view(node)}

    @cached_property
    def uses(self) -> list[ViewUse]:
        """Every use of a feature view by a solution of this repository."""
        return _uses(self.project.manifest_path, current_project().definitions_directory)

    def asset_specs(self) -> list[dg.AssetSpec]:
        """One asset for each node; a feature view also says who uses it, and how old its newest materialization may be."""
        return list(self._specs)

    @cached_property
    def _specs(self) -> list[dg.AssetSpec]:
        return [self._asset_spec(key, node) for key, node in self.nodes.items()]

    def _asset_spec(self, key: dg.AssetKey, node: Node) -> dg.AssetSpec:
        spec = self.translator.get_asset_spec(self.manifest, node["unique_id"], self.project)
        freshness = cadence_freshness(self.cadence) if is_incremental(node) else None
        spec = spec.replace_attributes(
            automation_condition=ON_NEW_INPUTS, freshness_policy=freshness, metadata=with_origin(spec.metadata, self.origin)
        )
        return describe_view(spec, self.views[key], self.uses, self.cadence) if key in self.views else spec

    def check_specs(self) -> list[dg.AssetCheckSpec]:
        """One blocking asset check for each dbt data test, and one for the contract of each feature view."""
        specs: list[dg.AssetCheckSpec | None] = [
            # The identifier keeps dagster-dbt, which takes every check for a dbt test, on the model itself.
            CONTRACT.spec(key).with_metadata({DAGSTER_DBT_UNIQUE_ID_METADATA_KEY: self.nodes[key]["unique_id"]})
            for key in self.views
        ]
        for asset in self.asset_specs():
            for child in self.manifest["child_map"][self.nodes[asset.key]["unique_id"]]:
                if child.startswith("test."):
                    specs.append(self.translator.get_asset_check_spec(asset, self.manifest, child, self.project))
        return [spec for spec in specs if spec is not None]


@remembered
def _uses(manifest: Path, definitions: Path) -> list[ViewUse]:
    return view_uses(declared_solutions(definitions).solutions.values(), FeatureRegistry.from_manifest(manifest))


def build_dbt_assets(selection: DbtSelection, name: str) -> dg.AssetsDefinition:
    """All nodes of `selection` in one op called `name`: whatever part of them a run asks for is one dbt call."""

    @dg.multi_asset(
        name=name,
        specs=selection.asset_specs(),
        check_specs=selection.check_specs(),
        can_subset=True,
        # Read by dagster-dbt: what to select when everything is asked for.
        op_tags={"dagster_dbt/select": f"tag:{selection.tag}", SLOTS_TAG: DBT},
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        pool=POOL,
    )
    @step
    def dbt_models(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> Iterator[Any]:
        yield from run_dbt(context, lake, settings, selection)

    return dbt_models


def run_dbt(context: dg.AssetExecutionContext, lake: Lake, settings: Settings, selection: DbtSelection) -> Iterator[Any]:
    """Build the selected assets of the run with `dbt build`, yielding their outputs and check results as dbt reports them.

    Other writers of the same tables wait meanwhile. Nothing is built when a feature view would break its contract. Raises
    `dagster.Failure` with dbt's messages, to be retried only when the fault is a transient one.
    """
    nodes = {key: selection.nodes[key] for key in context.selected_asset_keys}
    if not nodes and not DbtContext(context).selected_asset_check_keys:
        yield from check_contracts(context, lake, settings, views=selection.views, uses=selection.uses, declared=False)
        return
    arguments = ["build", "--exclude-resource-type", "unit_test", *_window_arguments(context, nodes)]
    with lake.writer_lock([table_name(key) for key in nodes]), tempfile.TemporaryDirectory(prefix="dbt_") as target:
        yield from check_contracts(context, lake, settings, views=selection.views, uses=selection.uses, declared=True)
        follow_contracts(context, lake, nodes)
        try:
            invocation = _call_dbt(context, lake, selection, arguments=arguments, target=Path(target))
            with lake.connect(read_only=True) as connection:
                for event in invocation.stream():
                    if isinstance(event, dg.Output):
                        key = context.asset_key_for_output(event.output_name)
                        _add_content(context, connection, key, nodes[key])
                        _add_column_lineage(context, selection.manifest, key, nodes[key], target=Path(target))
                    yield event
        except DagsterDbtCliRuntimeError as error:
            if any(words in str(error) for words in _TRANSIENT) or LOST_CONNECTION.search(str(error)):
                raise
            raise permanent_failure(str(error)) from error
        yield from check_contracts(context, lake, settings, views=selection.views, uses=selection.uses, declared=False)


def _is_view(node: Node) -> bool:
    return node.get("meta", {}).get("feature_view") is not None


def _window_arguments(context: dg.AssetExecutionContext, nodes: Mapping[dg.AssetKey, Node]) -> list[str]:
    """The window of the run as dbt's own flags, which unlike `--vars` do not make dbt parse the project again."""
    if not any(is_incremental(node) for node in nodes.values()):
        return []
    if not context.has_partition_key and not context.has_partition_key_range:
        raise permanent_failure("Incremental dbt models are built for partitions: choose those of this run.")
    window = context.partition_time_window
    return ["--event-time-start", f"{window.start:%Y-%m-%d}", "--event-time-end", f"{window.end:%Y-%m-%d}"]


def _call_dbt(
    context: dg.AssetExecutionContext, lake: Lake, selection: DbtSelection, *, arguments: Sequence[str], target: Path
) -> DbtCliInvocation:
    """Start dbt. `DbtCliResource.cli` does the same and, for seconds, imports dbt, asks its version and opens an adapter of its own."""
    parameters = get_updated_cli_invocation_params_for_context(
        context=cast(dg.AssetExecutionContext, DbtContext(context)),
        manifest=selection.manifest,
        dagster_dbt_translator=selection.translator,
    )
    project = parameters.dbt_project or selection.project
    environment = {
        **os.environ,
        "DBT_LOG_FORMAT": "json",
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(target),
        **dbt_profile_variables(),
        "DBT_USE_COLORS": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        "MLOPS_LAKE_CATALOG": lake.catalog,
        "MLOPS_LAKE_DATA": lake.data_path.rstrip("/"),
        "MLOPS_LAKE_BRANCHED": lake.branched.url if lake.branched else "",
        "MLOPS_DUCKDB_EXTENSIONS": str(lake.extension_directory),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if parameters.indirect_selection:
        environment["DBT_INDIRECT_SELECTION"] = parameters.indirect_selection
    # What `mlops prepare` parsed: parsing anew takes longer than most commands.
    parsed = Path(project.project_dir) / "target" / _PARSED_PROJECT
    if parsed.exists():
        shutil.copy(parsed, target)
    command = [*arguments, *parameters.selection_args]
    return DbtCliInvocation(
        process=cast(Any, start_dbt(command, directory=Path(project.project_dir), environment=environment)),
        manifest=parameters.manifest,
        dagster_dbt_translator=selection.translator,
        project=project,
        project_dir=Path(project.project_dir),
        target_path=target,
        raise_on_error=True,
        cli_version=Version(version("dbt-core")),
        context=context,
        adapter=None,
    )


def _add_column_lineage(context: dg.AssetExecutionContext, manifest: Node, key: dg.AssetKey, node: Node, *, target: Path) -> None:
    """Attach which columns upstream each column of a model just built is computed from: read from the SQL that dbt ran.

    It describes all partitions of the run together and is stored with the last of them, from which the Dagster UI takes it.
    """
    if node["resource_type"] != "model":
        return
    path = target / "compiled" / manifest["metadata"]["project_name"] / node["original_file_path"]
    names = {(table, column.lower()): column for table, columns in table_columns(manifest).items() for column in columns}
    sources = value_sources(manifest, node, path.read_text())
    lineage = column_lineage(
        {column: [(table_key(table), names[table, name]) for table, name in sorted(found)] for column, found in sources.items()}
    )
    partition = context.partition_keys[-1] if is_incremental(node) else None
    context.add_asset_metadata(lineage, asset_key=key, partition_key=partition)


def _add_content(context: dg.AssetExecutionContext, connection: duckdb.DuckDBPyConnection, key: dg.AssetKey, node: Node) -> None:
    """Attach the rows of a table just built, of each partition too, their fingerprint, which is the data version, and the lake snapshot.

    A view has no rows of its own: Dagster derives its version from its code and those of its inputs.
    """
    relation = lake_name(table_name(key))
    metadata = {"lake_snapshot": current_snapshot(connection)}
    if not is_incremental(node):
        if node["config"].get("materialized") == "view":
            rows = query_value(connection, f"SELECT count(*) FROM {relation}")
        else:
            rows, version = counted_fingerprint(connection, relation)
            context.set_data_version(key, dg.DataVersion(version))
        context.add_asset_metadata({**metadata, "dagster/row_count": rows}, asset_key=key)
        return
    column = quote(partition_column(node) or "")
    window = context.partition_time_window
    contents = partition_fingerprints(
        connection,
        relation,
        partition=f"CAST(t.{column} AS VARCHAR)",
        row_hash=row_hash([name for name in column_types(connection, relation) if not is_audit(name)]),
        where=f"t.{column} >= DATE '{window.start.date()}' AND t.{column} < DATE '{window.end.date()}'",
    )
    total = query_value(connection, f"SELECT count(*) FROM {relation}")
    context.add_asset_metadata({**metadata, "dagster/row_count": total}, asset_key=key)
    rows_by_date, hashes_by_date = ({day: content[part] for day, content in contents.items()} for part in (0, 1))
    record_partitions(context, rows_by_date, hashes_by_date, asset_key=key)
