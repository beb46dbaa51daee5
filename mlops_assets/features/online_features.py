"""`online_features`: the newest values of a solution's feature views in the online store, compared with the offline ones."""

import dagster as dg

from mlops_assets.core import check_rules
from mlops_assets.core.keys import ONLINE_FEATURES
from mlops_assets.core.settings import Settings
from mlops_assets.features.online_push import PushResult, lock_name, push_view
from mlops_assets.features.parity_check import check_parity
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import current_snapshot, table_exists
from mlops_assets.online_store.store import OnlineStore
from mlops_assets.stages.execution import RETRIES, permanent_failure
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs

_COLUMNS = {
    "view": "string",
    "entities": "int",
    "written": "int",
    "removed": "int",
    "seconds": "float",
    "read": "string",
}


class OnlineFeaturesConfig(dg.Config):
    """How to push: `rebuild` reads every view as a whole instead of what changed since its last push."""

    rebuild: bool = False


def build_online_features(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The online values of one solution. Views that several solutions use are in the store once."""
    key = inputs.key(ONLINE_FEATURES)
    views = [chosen for chosen in inputs.views if chosen.view.online]

    @dg.asset(
        key=key,
        description="The newest values of every online feature view, pushed to the online store: what changed since the last push.",
        kinds={"redis" if Settings.from_environment().redis_url else "lmdb", "duckdb"},
        **inputs.asset_attributes(ONLINE_FEATURES),
        # The comparison with the lake asks for what rows of the spine would.
        deps=[*map(inputs.view_key, views), inputs.spine_key],
        check_specs=[check_rules.ONLINE_OFFLINE_PARITY.spec(key)],
        retry_policy=RETRIES,
        code_version="1",
    )
    @step
    def online_features(
        config: OnlineFeaturesConfig, lake: dg.ResourceParam[Lake], online_store: dg.ResourceParam[OnlineStore]
    ) -> dg.MaterializeResult:
        pushed: list[PushResult] = []
        with lake.writer_lock([lock_name(chosen.view) for chosen in views]), lake.connect(read_only=True) as connection:
            if missing := [c.view.model.table for c in views if not table_exists(connection, c.view.model.table)]:
                raise permanent_failure(f"The lake lacks {', '.join(missing)}: materialize the feature views first.")
            # Read under the lock, so that no push takes a view back to an older snapshot.
            snapshot = current_snapshot(connection)
            for chosen in views:
                pushed.append(push_view(connection, online_store, chosen.view, snapshot=snapshot, rebuild=config.rebuild))
            states = [push.state for push in pushed]
            parity = check_parity(connection, online_store, inputs, views=views, states=states, snapshot=snapshot)
        return dg.MaterializeResult(
            check_results=[parity],
            metadata={
                "views": _table(pushed),
                "lake_snapshot": snapshot,
                "entities": sum(push.state.entities for push in pushed),
                "rows_pushed": sum(push.written + push.removed for push in pushed),
                "seconds": sum(push.seconds for push in pushed),
            },
        )

    return online_features


def _table(pushed: list[PushResult]) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord(
            {
                "view": f"{push.state.view.name} v{push.state.view.version}",
                "entities": push.state.entities,
                "written": push.written,
                "removed": push.removed,
                "seconds": round(push.seconds, 3),
                "read": f"whole view: {push.whole_view}" if push.whole_view else "changed rows",
            }
        )
        for push in pushed
    ]
    return dg.MetadataValue.table(
        records, schema=dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in _COLUMNS.items()])
    )
