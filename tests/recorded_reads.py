"""What each asset reads while it runs in the test process: tables of the lake, and versions of the registry. No tests here.

A query reads the tables that it names. A version of a model is handed on along the graph: `model` registers it, `evaluation` adds its
reference for monitoring, `deployment` makes it the champion. So a version is declared by a dependency on any of them.
"""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import dagster as dg
from dagster._core.execution.context.compute import AssetExecutionContext
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.tokens import TokenType

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.deployment_target import DeploymentTarget
from mlops_assets.core.keys import (
    CHALLENGER,
    DEPLOYMENT,
    EVALUATION,
    MODEL,
    ONLINE_FEATURES,
    PREDICTION_LOG,
    PREDICTIONS,
    RAW_SCHEMA,
    RETRAINING_DECISION,
    SEGMENT_STAGES,
    SHADOW_PREDICTIONS,
    SOLUTION_TAG,
    STAGE_TAG,
)
from mlops_assets.lake.lake import Lake
from mlops_assets.monitoring import monitored_windows, retraining_facts
from mlops_assets.sources.delivery_profiles import PROFILES_SCHEMA
from mlops_assets.sources.raw_delivery import QUARANTINE_SCHEMA, REJECTS_SCHEMA

VERSION, REFERENCE = "a version", "the reference of a version"
CHAMPION, SEGMENT_CHAMPION = "the champion", "the champion of a segment"

_REGISTRY = {
    "find": VERSION,
    "versions": VERSION,
    "get": VERSION,
    "by_alias": VERSION,
    "registered_record": VERSION,
    "accepted_record": VERSION,
    "download_bundle": VERSION,
    "parameters": VERSION,
    "reference_record": REFERENCE,
    "has_reference": REFERENCE,
    "download_reference": REFERENCE,
}
_STAGES = {
    **{
        what: tuple(form for stage in stages for form in (stage, SEGMENT_STAGES[stage]))
        for what, stages in (
            (VERSION, (MODEL, EVALUATION, DEPLOYMENT)),
            (REFERENCE, (EVALUATION,)),
        )
    },
    CHAMPION: (DEPLOYMENT,),
    SEGMENT_CHAMPION: (SEGMENT_STAGES[DEPLOYMENT],),
}
"""What is read of the registry, or of the history of deployments -> the stages that hand it on."""

_BESIDE_RAW = (PROFILES_SCHEMA, QUARANTINE_SCHEMA, REJECTS_SCHEMA)
"""Schemas of what a raw asset writes beside its table."""

FEEDBACK = {
    # A graph has no circle: the candidate is held against what predicts now, which an earlier training deployed.
    (EVALUATION, CHAMPION),
    (SEGMENT_STAGES[EVALUATION], CHAMPION),
    (SEGMENT_STAGES[EVALUATION], SEGMENT_CHAMPION),
}
"""Stages and what they read of an earlier turn of the loop, which no dependency can state."""

FORMER_RELEASE = {
    # Each asks whether the other's table still holds rows of its own, and moves them once.
    (PREDICTION_LOG, PREDICTIONS),
    (SHADOW_PREDICTIONS, PREDICTIONS),
    (SEGMENT_STAGES[EVALUATION], EVALUATION),
}
"""Stages and tables in which a former release kept what they write."""

HANDED_ON = {
    # The last result of its check is asked of Dagster.
    (DEPLOYMENT, ONLINE_FEATURES),
    (SEGMENT_STAGES[DEPLOYMENT], ONLINE_FEATURES),
    # The servers predict with what it deployed.
    (PREDICTION_LOG, DEPLOYMENT),
    (PREDICTION_LOG, SEGMENT_STAGES[DEPLOYMENT]),
    (PREDICTION_LOG, CHALLENGER),
    (SHADOW_PREDICTIONS, CHALLENGER),
}
"""Stages and dependencies of theirs that reach them by another way than the lake or the registry."""

UNDER_A_CONDITION = {
    # Losses of another version are compared on stored features: when one served before, or this one is recalibrated.
    (RETRAINING_DECISION, PREDICTIONS),
    (RETRAINING_DECISION, PREDICTION_LOG),
    (RETRAINING_DECISION, DEPLOYMENT),
}
"""Stages and dependencies of theirs that they read in some runs: a chain that has the condition must read them."""

Reads = dict[dg.AssetKey, set[str]]


@contextlib.contextmanager
def recorded_reads(reads: Reads) -> Iterator[None]:
    """Add to `reads` what the assets read that run inside the block: `schema.table`, or a key of `_STAGES`."""

    def record(names: Iterable[str]) -> None:
        for key in _running():
            reads[key].update(names)

    with contextlib.ExitStack() as patches:
        patches.enter_context(patch.object(Lake, "connect", _recording_connect(Lake.connect, record)))
        patches.enter_context(
            patch.object(monitored_windows, "stage_once", _recording_stage(monitored_windows.stage_once, record))
        )
        patches.enter_context(
            patch.object(retraining_facts, "newest_dataset", _recording_dataset(retraining_facts.newest_dataset, record))
        )
        for method, what in _REGISTRY.items():
            recording = _recording_method(getattr(ModelRegistry, method), functools.partial(record, [what]))
            patches.enter_context(patch.object(ModelRegistry, method, recording))
        patches.enter_context(patch.object(ModelRegistry, "champion", _recording_champion(ModelRegistry.champion, record)))
        for method in ("newest_deployment", "version_before"):
            recording = _recording_history(getattr(DeploymentTarget, method), record)
            patches.enter_context(patch.object(DeploymentTarget, method, recording))
        yield


def undeclared_and_unread(
    assets: Sequence[dg.AssetsDefinition],
    reads: Reads,
    *,
    without_table: Collection[dg.AssetKey],
    unmet: Collection[tuple[str, str]] = UNDER_A_CONDITION,
) -> tuple[set[str], set[str]]:
    """Reads of no declared dependency, and dependencies that were not read, of the assets that ran, as `reader: what`.

    Assets `without_table` have not written theirs yet, so that nobody could read it; `unmet` are the reads of `UNDER_A_CONDITION`
    whose condition the runs did not have. dbt runs in a process of its own: its models
    depend on what they name, by dbt's own manifest.
    """
    specs = {spec.key: spec for asset in assets for spec in asset.specs}
    own = {key: asset.keys for asset in assets for key in asset.keys}
    undeclared, unread = set(), set()
    for key, names in reads.items():
        spec = specs.get(key)
        if spec is None or "dbt" in spec.kinds:
            continue
        declared = {dependency.asset_key for dependency in spec.deps}
        solution, stage = spec.tags.get(SOLUTION_TAG), spec.tags.get(STAGE_TAG)
        covered: set[dg.AssetKey] = set()
        for name in names:
            sources = _sources(name, solution)
            covered |= sources
            if not sources & (declared | own[key]) and (stage, name.partition(".")[2] or name) not in FEEDBACK | FORMER_RELEASE:
                undeclared.add(f"{key.to_user_string()}: {name}")
        unread |= {
            f"{key.to_user_string()}: {dependency.to_user_string()}"
            for dependency in declared - covered - set(without_table)
            if (stage, dependency.path[-1]) not in {*HANDED_ON, *unmet}
        }
    return undeclared, unread


def _sources(name: str, solution: str | None) -> set[dg.AssetKey]:
    """The assets that write what was read."""
    if name in _STAGES:
        return {dg.AssetKey([str(solution), stage]) for stage in _STAGES[name]}
    schema, _, table = name.partition(".")
    if schema in _BESIDE_RAW:
        return {dg.AssetKey([RAW_SCHEMA, table])}
    return {dg.AssetKey([schema, table])}


def _running() -> frozenset[dg.AssetKey]:
    try:
        context = AssetExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return frozenset()
    return frozenset(context.selected_asset_keys)


class _Connection:
    """A connection to the lake that tells which tables its queries name."""

    def __init__(self, connection: Any, record: Callable[[Iterable[str]], None]):
        self._connection = connection
        self._record = record

    def execute(self, query: str, *arguments: Any, **named: Any) -> Any:
        self._record(_tables(query))
        return self._connection.execute(query, *arguments, **named)

    def sql(self, query: str, **named: Any) -> Any:
        self._record(_tables(query))
        return self._connection.sql(query, **named)

    def cursor(self) -> "_Connection":
        return _Connection(self._connection.cursor(), self._record)

    def __enter__(self) -> "_Connection":
        self._connection.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._connection.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _tables(query: str) -> set[str]:
    """The names `lake.schema.table` in a query, as `schema.table`; what a text holds is none.

    To define a view reads nothing, nor does to ask whether there is a table (`lake.tables.table_exists`).
    """
    if query.startswith(("CREATE OR REPLACE VIEW ", "DESCRIBE lake.")):
        return set()
    tokens = DuckDB().tokenize(query)
    parts = [(token.text, token.token_type) for token in tokens]
    return {
        f"{parts[place + 2][0]}.{parts[place + 4][0]}"
        for place in range(len(parts) - 4)
        if parts[place] == ("lake", TokenType.VAR)
        and parts[place + 1][1] == TokenType.DOT
        and parts[place + 3][1] == TokenType.DOT
    }


def _recording_connect(connect: Callable[..., Any], record: Callable[[Iterable[str]], None]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def recording(lake: Lake, **keywords: Any) -> _Connection:
        return _Connection(connect(lake, **keywords), record)

    return recording


def _recording_stage(stage: Callable[..., None], record: Callable[[Iterable[str]], None]) -> Callable[..., None]:
    """The reports of a run read the rows that the first of them took from the lake."""

    @functools.wraps(stage)
    def recording(*arguments: Any, tables: Sequence[str], **keywords: Any) -> None:
        record(tables)
        stage(*arguments, tables=tables, **keywords)

    return recording


def _recording_dataset(newest: Callable[..., Any], record: Callable[[Iterable[str]], None]) -> Callable[..., Any]:
    """What a dataset was made from is recorded with the commits of its table, which name it as a text."""

    @functools.wraps(newest)
    def recording(connection: Any, table: str, *arguments: Any) -> Any:
        record([table])
        return newest(connection, table, *arguments)

    return recording


def _recording_method(method: Callable[..., Any], record: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def recording(*arguments: Any, **keywords: Any) -> Any:
        record()
        return method(*arguments, **keywords)

    return recording


def _recording_champion(champion: Callable[..., Any], record: Callable[[Iterable[str]], None]) -> Callable[..., Any]:
    @functools.wraps(champion)
    def recording(registry: ModelRegistry, solution: str, segment: str | None = None) -> Any:
        record([CHAMPION if segment is None else SEGMENT_CHAMPION])
        return champion(registry, solution, segment)

    return recording


def _recording_history(read: Callable[..., Any], record: Callable[[Iterable[str]], None]) -> Callable[..., Any]:
    """Who served when is what Dagster recorded of the deployments."""

    @functools.wraps(read)
    def recording(target: DeploymentTarget, *arguments: Any, **keywords: Any) -> Any:
        record([CHAMPION if target.segment is None else SEGMENT_CHAMPION])
        return read(target, *arguments, **keywords)

    return recording


def new_reads() -> Reads:
    """Nothing read yet."""
    return defaultdict(set)
