"""The inputs of every stage of a solution: its YAML with its dbt models resolved."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from mlops_assets.core.deployment_target import DeploymentTarget
from mlops_assets.core.keys import (
    DEPLOYMENT,
    EVALUATION,
    PREDICTION_LOG,
    PREDICTIONS,
    SEGMENT,
    SEGMENT_STAGES,
    TRAINING_DATE,
    stage_key,
    stage_table,
    stage_tags,
)
from mlops_assets.core.missing_values import is_present
from mlops_assets.core.partitions import build_partitions
from mlops_assets.feature_store.point_in_time import Frame, SelectedView
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.runs.slots import SLOTS_TAG
from mlops_assets.schema.column_names import HELD_OUT
from mlops_assets.schema.solution import Solution
from mlops_assets.serving.derived import with_derived
from mlops_assets.stages.pod_tags import pod_tags


@dataclass(frozen=True)
class StageConduct:
    """The condition that makes the assets of a stage follow their inputs, how old they may become, further tags and metadata."""

    condition: dg.AutomationCondition | None = None
    freshness: dg.FreshnessPolicy | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SolutionInputs:
    """A solution, the dbt model of its spine, the feature views it uses, and the features that come with the request.

    `request` are columns the caller supplies; `derived` maps the name of a feature to a SQL expression over them. With `by_segment`
    they are those of the segments' models, and `segment` is the one of the run, None outside a run. `conduct` is that of the stage that
    is built from them.
    """

    solution: Solution
    spine: DbtModel
    views: tuple[SelectedView, ...]
    request: tuple[str, ...]
    derived: Mapping[str, str]
    by_segment: bool = False
    segment: str | None = None
    conduct: StageConduct = field(default_factory=StageConduct)

    @property
    def name(self) -> str:
        """Name of the solution."""
        return self.solution.name

    @property
    def features(self) -> tuple[str, ...]:
        """All feature names: requested, derived, then those of the views, each in the order of the YAML file."""
        return (*self.request, *self.derived, *(feature for chosen in self.views for feature in chosen.features))

    @property
    def entity(self) -> tuple[str, ...]:
        """The entity keys of all views, each once."""
        return tuple(dict.fromkeys(key for chosen in self.views for key in chosen.view.entity))

    @property
    def view_versions(self) -> dict[str, int]:
        """Feature view -> version in use."""
        return {chosen.view.name: chosen.view.version for chosen in self.views}

    @property
    def column_descriptions(self) -> dict[str, str]:
        """Descriptions of the spine's columns and of all features."""
        described = dict(self.spine.column_descriptions)
        described |= {name: f"Derived from the request: {expression}" for name, expression in self.derived.items()}
        for chosen in self.views:
            described |= {feature: chosen.view.model.column_descriptions[feature] for feature in chosen.features}
        return described

    @property
    def partitions(self) -> dg.TimeWindowPartitionsDefinition:
        """Partitions of the data stages; a training date is one of these keys too."""
        partitions = self.solution.partitions
        return build_partitions(partitions.start, partitions.end, partitions.cadence)

    @property
    def training_partitions(self) -> dg.PartitionsDefinition:
        """Partitions of a model: its training date, with `by_segment` and its segment."""
        segments = self.solution.segments
        if not self.by_segment or segments is None:
            return self.partitions
        return dg.MultiPartitionsDefinition(
            {TRAINING_DATE: self.partitions, SEGMENT: dg.StaticPartitionsDefinition(segments.values)}
        )

    @property
    def deployment_target(self) -> DeploymentTarget:
        """The solution or segment whose champion the model of this run may become."""
        return DeploymentTarget(self.name, self.segment, self.training_partitions, self.solution.deployment.needs_approval)

    @property
    def segment_deployment_targets(self) -> list[DeploymentTarget]:
        """The segments, each of which may have a champion."""
        segments = self.solution.segments
        return [replace(self, by_segment=True, segment=name).deployment_target for name in segments.values] if segments else []

    @property
    def in_segment(self) -> str:
        """SQL that is true for the rows of the segment of this run; without one, for all."""
        segments = self.solution.segments
        if self.segment is None or segments is None:
            return "true"
        return f"CAST({quote(segments.column)} AS VARCHAR) = {literal(self.segment)}"

    @property
    def is_labelled(self) -> str:
        """SQL that is true for a row of the spine that has a label, one that is not missing."""
        return is_present(quote(self.solution.spine.label), numeric=self.solution.problem == "regression")

    @property
    def is_predicted(self) -> str:
        """SQL that is true for a row of the spine that the batch predicts: without time, one that is held out or has no label."""
        return "true" if self.solution.spine.has_time else f"{HELD_OUT} IS DISTINCT FROM false"

    @property
    def of_segments(self) -> "SolutionInputs | None":
        """The inputs of the segments' models, None when the solution has none."""
        return replace(self, by_segment=True) if self.solution.segments else None

    @property
    def deployments(self) -> list[dg.AssetKey]:
        """Assets that decide which versions predict."""
        return [inputs.key(DEPLOYMENT) for inputs in (self, self.of_segments) if inputs]

    @property
    def evaluations(self) -> list[dg.AssetDep]:
        """Dependencies on the assets that evaluate versions, of whatever training date."""
        every = dg.AllPartitionMapping()
        return [dg.AssetDep(inputs.key(EVALUATION), partition_mapping=every) for inputs in (self, self.of_segments) if inputs]

    @property
    def predictions(self) -> list[dg.AssetKey]:
        """Assets that hold predictions: those of the batch, and those of the servers."""
        return [self.key(PREDICTIONS), self.key(PREDICTION_LOG)]

    @property
    def windows(self) -> dg.TimeWindowPartitionsDefinition:
        """Partitions of the monitoring stages."""
        partitions = self.solution.partitions
        return build_partitions(partitions.start, partitions.end, self.solution.monitoring.window)

    @property
    def upstream_keys(self) -> list[dg.AssetKey]:
        """Assets of the spine and of every feature view."""
        return [self.spine_key, *map(self.view_key, self.views)]

    @property
    def spine_key(self) -> dg.AssetKey:
        """Asset of the spine."""
        return dg.AssetKey(self.spine.asset_path)

    @property
    def late_views(self) -> list[dg.AssetKey]:
        """Assets of the feature views for which predictions do not wait for ever."""
        return [self.view_key(chosen) for chosen in self.views if chosen.may_be_late is not None]

    def view_key(self, chosen: SelectedView) -> dg.AssetKey:
        """Asset of a feature view."""
        return dg.AssetKey(chosen.view.model.asset_path)

    def midnight(self, day: date) -> datetime:
        """The moment at which `day` begins in the data's time zone, in UTC."""
        zone = ZoneInfo(self.solution.partitions.time_zone)
        return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)

    def key(self, stage: str) -> dg.AssetKey:
        """Asset key of one stage."""
        return stage_key(self.name, self._stage(stage))

    def table(self, stage: str) -> str:
        """Lake table of one stage."""
        return stage_table(self.name, self._stage(stage))

    def asset_attributes(self, stage: str, slots: str | None = None) -> dict[str, Any]:
        """The arguments of `dg.asset` that every stage of a solution has. Its runs have `slots` of a kind, or those of work."""
        return {**self.spec_attributes(stage), "op_tags": self.op_tags(stage, slots)}

    def op_tags(self, stage: str, slots: str | None = None) -> dict[str, Any]:
        """The tags of the step of a stage."""
        return {**({SLOTS_TAG: slots} if slots else {}), **pod_tags(self.solution.resources.get(stage))}

    def spec_attributes(self, stage: str) -> dict[str, Any]:
        """The arguments of `dg.asset` and `dg.AssetSpec` that every stage of a solution has."""
        return {
            "owners": self.solution.owners,
            "group_name": self.name,
            "tags": {**stage_tags(self.name, self._stage(stage)), **self.conduct.tags},
            "automation_condition": self.conduct.condition,
            "freshness_policy": self.conduct.freshness,
            "metadata": self.conduct.metadata,
        }

    def _stage(self, stage: str) -> str:
        return SEGMENT_STAGES.get(stage, stage) if self.by_segment else stage

    def spine_columns(self, *, labelled: bool) -> list[str]:
        """Columns of the spine in a frame: partition, key, prediction time, (`labelled`) label, its time, weight, keys, requested features."""
        spine = self.solution.spine
        columns = [self.solution.partitions.column, spine.key, spine.prediction_time]
        if labelled:
            weight = self.solution.training.sample_weight
            columns += [spine.label, spine.label_time, *([weight] if weight else []), *([] if spine.has_time else [HELD_OUT])]
        return list(dict.fromkeys([*columns, *self.entity, *self.request]))

    def frame_query(self, *, first: date, end: date, condition: str, labelled: bool, snapshot: int) -> str:
        """The SQL of `frame` as one statement."""
        return self.frame(first=first, end=end, condition=condition, labelled=labelled, snapshot=snapshot).query

    def frame(self, *, first: date, end: date, condition: str, labelled: bool, snapshot: int) -> Frame:
        """The spine rows of partitions in `[first, end)` that satisfy `condition`, with all features as known at prediction.

        Columns: `spine_columns`, the derived features, then per view its features and the audit column with the event timestamp of
        its values. Spine and views are read as of the lake's `snapshot`.
        """
        spine, partition = self.solution.spine, self.solution.partitions.column
        # Named as they are declared: the lake keeps the case in which they were written.
        names = ", ".join(f"{quote(name)} AS {quote(name)}" for name in self.spine_columns(labelled=labelled))
        rows = (
            f"SELECT {names} FROM {lake_name(self.spine.table)} AT (VERSION => {snapshot}) WHERE {quote(partition)} >= DATE '{first}' "
            f"AND {quote(partition)} < DATE '{end}' AND {condition}"
        )
        return Frame(
            spine=with_derived(rows, self.derived),
            prediction_time=spine.prediction_time,
            views=self.views,
            first=first - timedelta(days=1),
            last=end,
            snapshot=snapshot,
        )
