"""Translation of a node of the dbt manifest to Dagster: key, group, partitions, owners, code version. Running dbt goes elsewhere."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import dagster as dg
from dagster_shared.record import replace

from mlops_assets.core.freshness import cadence_freshness
from mlops_assets.core.keys import group_name
from mlops_assets.feature_store.registry import FeatureView, stated_asset_key
from mlops_assets.feature_store.usage import ViewUse
from mlops_assets.features.dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject
from mlops_assets.schema.cadence import CADENCE_LENGTHS, Cadence

Node = Mapping[str, Any]

_MACROS_OF_DBT = ("macro.dbt.", "macro.dbt_duckdb.")


class LakeTranslator(DagsterDbtTranslator):
    """Asset keys are `<schema>/<alias>`, groups are schemas of a source, and incremental models have the partitions of the component.

    Reads from a node's `meta`: `owner`, `partition_column` (incremental models and partitioned sources) and
    `dagster.history_days`, how many days before its own partition a model reads from its inputs.
    """

    def __init__(self, manifest: Node, partitions: dg.TimeWindowPartitionsDefinition, cadence: Cadence, source: str):
        super().__init__(DagsterDbtTranslatorSettings(enable_code_references=True, enable_source_metadata=False))
        self._manifest = manifest
        self._partitions = partitions
        self._cadence = cadence
        self._source = source

    def get_asset_key(self, dbt_resource_props: Node) -> dg.AssetKey:
        """`<schema>/<alias>`, for a source `<schema>/<table>`: the name of the table in the lake. A source may state another key."""
        if stated := stated_asset_key(dbt_resource_props):
            return dg.AssetKey(stated)
        return dg.AssetKey([dbt_resource_props["schema"], dbt_resource_props.get("alias") or dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Node) -> str:
        """`<source>_staging` or `<source>_features`; a spine is in the group of its solution."""
        return group_name(self._source, dbt_resource_props["schema"])

    def get_description(self, dbt_resource_props: Node) -> str:
        """The description alone; the SQL is one click away as a code reference."""
        return dbt_resource_props["description"]

    def get_owners(self, dbt_resource_props: Node) -> list[str] | None:
        """`meta.owner`, an e-mail address or `team:<name>`."""
        owner = _meta(dbt_resource_props).get("owner")
        return [owner] if owner else None

    def get_partitions_def(self, dbt_resource_props: Node) -> dg.PartitionsDefinition | None:
        """The component's partitions for an incremental model; tables, views and seeds are whole."""
        return self._partitions if is_incremental(dbt_resource_props) else None

    def get_partition_mapping(self, dbt_resource_props: Node, dbt_parent_resource_props: Node) -> dg.PartitionMapping | None:
        """A partition reads its own window of a partitioned input and the days before it, as far as those exist.

        Dagster knows one mapping for an input of an op, so that all readers of a table have the one of the reader that goes back
        furthest: `meta.dagster.history_days`.
        """
        if not is_incremental(dbt_resource_props) or not partition_column(dbt_parent_resource_props):
            return None
        # dagster-dbt also asks for the mapping of each model to itself, which nothing here reads.
        history_days = self._history_days.get(dbt_parent_resource_props["unique_id"], 0)
        return dg.TimeWindowPartitionMapping(
            start_offset=-math.ceil(history_days / CADENCE_LENGTHS[self._cadence].fewest_days),
            allow_nonexistent_upstream_partitions=True,
        )

    def get_asset_check_spec(
        self, asset_spec: dg.AssetSpec, manifest: Node, unique_id: str, project: DbtProject | None
    ) -> dg.AssetCheckSpec | None:
        """The check of a dbt data test, with the test's description or what it holds to be true."""
        spec = super().get_asset_check_spec(asset_spec, manifest, unique_id, project)
        return spec and replace(spec, description=describe_test(manifest["nodes"][unique_id]))

    def get_code_version(self, dbt_resource_props: Node) -> str | None:
        """Changes with the model's SQL (for a seed its file) and with the macros behind it, but those of dbt."""
        if dbt_resource_props["resource_type"] == "source":
            return None
        digest = hashlib.sha256(dbt_resource_props["checksum"]["checksum"].encode())
        for name in sorted(set(self._macros(dbt_resource_props))):
            digest.update(self._manifest["macros"][name]["macro_sql"].encode())
        return digest.hexdigest()[:16]

    @cached_property
    def _history_days(self) -> Mapping[str, int]:
        """Id of a node -> how many days before its own partition its readers go back at most."""
        days: dict[str, int] = {}
        for node in filter(is_incremental, self._manifest["nodes"].values()):
            for parent in node["depends_on"]["nodes"]:
                days[parent] = max(days.get(parent, 0), _meta(node).get("dagster", {}).get("history_days", 0))
        return days

    def _macros(self, node: Node) -> Iterator[str]:
        for name in node.get("depends_on", {}).get("macros", []):
            if not name.startswith(_MACROS_OF_DBT):
                yield name
                yield from self._macros(self._manifest["macros"][name])


def describe_test(test: Node) -> str:
    """What a dbt data test holds to be true: its description, or else what its kind and its arguments mean."""
    if described := test.get("description"):
        return described
    kind = test.get("test_metadata") or {"name": test["name"], "kwargs": {}}
    arguments = {name: value for name, value in kind["kwargs"].items() if name != "model"}
    column = f"`{arguments.pop('column_name')}`" if "column_name" in arguments else ""
    match kind["name"]:
        case "unique":
            return f"No value of {column} occurs twice."
        case "not_null":
            return f"Every row has a value of {column}."
        case "accepted_values":
            return f"Every value of {column} is one of {', '.join(map(str, arguments['values']))}."
        case "relationships":
            return f"Every value of {column} is a {arguments['field']} of {arguments['to']}."
        case "unique_combination":
            return f"No two rows have the same {', '.join(f'`{name}`' for name in arguments['columns'])}."
        case "is_true":
            return f"For every row: `{arguments['condition']}`."
    stated = ", ".join(f"{name} {value}" for name, value in arguments.items())
    return f"dbt test {kind['name']}" + (f" of {column}" if column else "") + (f": {stated}." if stated else ".")


def describe_view(spec: dg.AssetSpec, view: FeatureView, uses: Sequence[ViewUse], cadence: Cadence) -> dg.AssetSpec:
    """`spec` with what makes it a feature view, who uses it, and a freshness policy.

    The policy looks at the clock on the wall and at the newest materialization of any partition: it fails when a view was not built
    for `refresh_days`, by default for two cadences, that is when one update was missed. How old a *value* may be at prediction
    time is `freshness_days`, and the join sees to that.
    """
    users = sorted({use.solution for use in uses if (use.view, use.version) == (view.name, view.version)})
    metadata: dict[str, Any] = {
        "feature_view": view.name,
        "version": view.version,
        "entity": ", ".join(view.entity),
        "event_timestamp": view.event_timestamp or "none: the values hold at all times",
        "freshness_days": view.freshness_days or "none: values do not expire",
        "online": view.online,
        "features": dg.MetadataValue.json(list(view.features)),
        "owner": view.owner or "none",
        "used_by_solutions": dg.MetadataValue.json(users),
        # The overview shows no metadata of observations, so it leads to them.
        "values_and_impact": dg.MetadataValue.md(
            f"[Columns with values over time, uses, impact, newest rows](/assets/{spec.key.to_user_string()}?view=events)"
        ),
    }
    return spec.merge_attributes(metadata=metadata).replace_attributes(
        freshness_policy=cadence_freshness(cadence, view.refresh_days)
    )


def is_incremental(node: Node) -> bool:
    """Whether dbt replaces windows of the node's table rather than the whole of it."""
    return node.get("config", {}).get("materialized") == "incremental"


def partition_column(node: Node) -> str | None:
    """The DATE column by which the node's table is partitioned."""
    return _meta(node).get("partition_column")


def _meta(node: Node) -> Mapping[str, Any]:
    return node.get("config", {}).get("meta") or node.get("meta") or {}
