"""The feature registry: feature views and spines as the dbt manifest describes them. There is no second list."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlops_assets.feature_store.model_problems import FeatureViewError, ModelProblem, UnknownModelError
from mlops_assets.schema.column_names import RESERVED, fold
from mlops_assets.schema.configuration_errors import nearest
from mlops_assets.schema.feature_view import FeatureViewMeta

_UNIQUENESS = ("unique", "unique_combination")
"""Data tests that hold columns to be unique."""


@dataclass(frozen=True)
class DbtModel:
    """One dbt model, or a dbt source: a table that an asset outside dbt writes. Its lake table, its columns with type and description,
    and the DATE column of its partitions (None = none).

    `file` is the file that describes it, in the dbt project. `required` are the columns that its contract or a data test holds to have
    a value, `accepted` the values of those that a data test lists. `time_zone` is that of its dates, None where the model does not state it.
    `stated_asset` is the asset key that a source states in `meta.dagster.asset_key`.
    """

    name: str
    table: str
    description: str
    columns: Mapping[str, str]
    column_descriptions: Mapping[str, str]
    partition_column: str | None
    file: str = ""
    required: frozenset[str] = frozenset()
    accepted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    time_zone: str | None = None
    stated_asset: tuple[str, ...] = ()

    @property
    def asset_path(self) -> tuple[str, ...]:
        """The path of its asset's key: what it states, else schema and name of the table."""
        return self.stated_asset or tuple(self.table.split("."))


@dataclass(frozen=True)
class FeatureView:
    """A dbt model or source whose rows are feature values of one entity from a moment on.

    Without `event_timestamp` the values hold at all times. Values older than `freshness_days` at prediction time do not count.
    """

    model: DbtModel
    version: int
    entity: tuple[str, ...]
    event_timestamp: str | None
    freshness_days: int | None
    owner: str | None
    online: bool = True
    refresh_days: int | None = None
    description: str = ""

    @property
    def name(self) -> str:
        """Name of the view."""
        return self.model.name

    @property
    def features(self) -> tuple[str, ...]:
        """The view's columns that are neither keys nor times nor audit columns."""
        others = {*self.entity, self.event_timestamp, self.model.partition_column}
        return tuple(column for column in self.model.columns if column not in others and not _is_audit(column))


@dataclass(frozen=True)
class FeatureRegistry:
    """All dbt models by name, sources whose name no model has, and the feature views among them by name and version."""

    models: Mapping[str, DbtModel]
    views: Mapping[tuple[str, int], FeatureView]

    @classmethod
    def from_manifest(cls, path: Path) -> "FeatureRegistry":
        """Read `manifest.json`; cached until the file changes.

        Raises FileNotFoundError with the command that makes it, and FeatureViewError when a `meta.feature_view` is wrong.
        """
        if not path.is_file():
            raise FileNotFoundError(f"No dbt manifest at {path}: run `mlops prepare`.")
        return _read_manifest(path, path.stat().st_mtime_ns)

    def model(self, name: str) -> DbtModel:
        """The dbt model `name`. Raises UnknownModelError."""
        if name not in self.models:
            raise UnknownModelError(f"there is no dbt model {name!r}", sorted(self.models))
        return self.models[name]

    def view(self, name: str, version: int | None) -> FeatureView:
        """The feature view `name` in `version` (None = the newest). Raises UnknownModelError."""
        versions = sorted(number for view, number in self.views if view == name)
        if not versions:
            raise UnknownModelError(f"there is no feature view {name!r}", sorted({view for view, _ in self.views}))
        if version is not None and version not in versions:
            raise UnknownModelError(f"feature view {name!r} has no version {version}", [str(number) for number in versions])
        return self.views[name, version or versions[-1]]


@lru_cache(maxsize=4)
def _read_manifest(path: Path, modified: int) -> FeatureRegistry:
    manifest = json.loads(path.read_text())
    nodes = manifest["nodes"].values()
    unique = unique_keys(nodes)
    required, accepted = _tested_values(nodes)
    models: dict[str, DbtModel] = {}
    views: dict[tuple[str, int], FeatureView] = {}
    problems: list[ModelProblem] = []
    for node in nodes:
        if node["resource_type"] != "model":
            continue
        model = _model(node)
        tested = node["unique_id"]
        model = replace(model, required=model.required | required.get(tested, set()), accepted=accepted.get(tested, {}))
        # Versions of a model share its name, which alone means the latest one.
        if node.get("version") in (None, node.get("latest_version")):
            models[model.name] = model
        if node["meta"].get("feature_view") is not None:
            try:
                view = replace(feature_view(node), model=model)
            except FeatureViewError as error:
                problems += error.problems
                continue
            if problem := _uniqueness_problem(view, unique.get(tested, [])):
                problems.append(problem)
            views[view.name, view.version] = view
    for node in manifest.get("sources", {}).values():
        model = _model(node)
        models.setdefault(model.name, model)
        if node["meta"].get("feature_view") is not None:
            try:
                views.setdefault((model.name, 1), feature_view(node))
            except FeatureViewError as error:
                problems += error.problems
    if problems:
        raise FeatureViewError(*problems)
    return FeatureRegistry(models=models, views=views)


def _uniqueness_problem(view: FeatureView, unique: Sequence[set[str]]) -> ModelProblem | None:
    """The problem of a view without a data test that holds a row to be the only one of its entity and time."""
    identifying = [*view.entity, *([view.event_timestamp] if view.event_timestamp else [])]
    if any(columns <= set(identifying) for columns in unique):
        return None
    # The join would take one of two rows that are known at the same time, and not always the same one.
    message = (
        "no data test says that a row is the only one of its entity and time; "
        f"add `data_tests: [{{mlops.unique_combination: {{arguments: {{columns: [{', '.join(identifying)}]}}}}}}]` to the model"
    )
    return ModelProblem(view.model.file, view.name, (), message)


def feature_view(node: Mapping[str, Any]) -> FeatureView:
    """The feature view that a model of the dbt manifest describes. Raises FeatureViewError with all that is wrong with its meta."""
    model = _model(node)
    meta = _feature_view_meta(node["meta"]["feature_view"], model)
    version = int(node.get("version") or 1)
    problems: list[ModelProblem] = []

    def add(path: tuple[str | int, ...], message: str) -> None:
        problems.append(_meta_problem(model, path, message))

    named: dict[tuple[str | int, ...], str] = {("entity", number): column for number, column in enumerate(meta.entity)}
    if meta.event_timestamp is not None:
        named["event_timestamp",] = meta.event_timestamp
    for path, column in named.items():
        if column not in model.columns:
            add(path, f"the model has no column {column!r}; {nearest(column, list(model.columns))}")
    if meta.freshness_days is not None and meta.event_timestamp is None:
        add(("freshness_days",), "values without event_timestamp hold at all times; remove one or add the other")
    if meta.version not in (None, version):
        add(("version",), f"{meta.version} is not the dbt version of the model, {version}; declare dbt `versions`")
    if undescribed := [name for name in model.columns if not _is_audit(name) and not model.column_descriptions[name]]:
        add((), f"describe the columns {', '.join(undescribed)}")
    if problems:
        raise FeatureViewError(*problems)
    return FeatureView(
        model=model,
        version=version,
        entity=tuple(meta.entity),
        event_timestamp=meta.event_timestamp,
        freshness_days=meta.freshness_days,
        owner=meta.owner or node["meta"].get("owner"),
        online=meta.online,
        refresh_days=meta.refresh_days,
        description=meta.description or model.description.strip(),
    )


def stated_asset_key(node: Mapping[str, Any]) -> list[str] | None:
    """The path of the asset key that a source states, as dagster-dbt reads it; None where it follows from the table."""
    if node["resource_type"] != "source":
        return None
    return node.get("meta", {}).get("dagster", {}).get("asset_key")


def _is_audit(column: str) -> bool:
    return fold(column) in RESERVED["features"]


def _meta_problem(model: DbtModel, path: tuple[str | int, ...], message: str) -> ModelProblem:
    return ModelProblem(model.file, model.name, ("meta", "feature_view", *path), message)


def unique_keys(nodes: Iterable[Mapping[str, Any]]) -> dict[str, list[set[str]]]:
    """Model's id -> the sets of columns that a data test holds to be unique together."""
    columns_by_model: dict[str, list[set[str]]] = {}
    for node in nodes:
        test = node.get("test_metadata") or {}
        if test.get("name") in _UNIQUENESS:
            arguments = test["kwargs"]
            columns = {arguments["column_name"]} if "column_name" in arguments else set(arguments["columns"])
            columns_by_model.setdefault(node["attached_node"], []).append(columns)
    return columns_by_model


def _tested_values(nodes: Iterable[Mapping[str, Any]]) -> tuple[dict[str, set[str]], dict[str, dict[str, tuple[str, ...]]]]:
    """Model's id -> its columns that a data test holds to have a value, and -> the values that a data test accepts, by column."""
    required: dict[str, set[str]] = {}
    accepted: dict[str, dict[str, tuple[str, ...]]] = {}
    for node in nodes:
        test = node.get("test_metadata") or {}
        # A test with a condition is about some of the rows.
        if node.get("config", {}).get("where") or "column_name" not in test.get("kwargs", {}):
            continue
        column = test["kwargs"]["column_name"]
        if test["name"] == "not_null":
            required.setdefault(node["attached_node"], set()).add(column)
        elif test["name"] == "accepted_values":
            accepted.setdefault(node["attached_node"], {})[column] = tuple(map(str, test["kwargs"]["values"]))
    return required, accepted


def _feature_view_meta(described: Any, model: DbtModel) -> FeatureViewMeta:
    """The validated meta. Raises FeatureViewError with every wrong field."""
    try:
        return FeatureViewMeta.model_validate(described)
    except ValidationError as error:
        problems = error.errors()
    raise FeatureViewError(*(_meta_problem(model, problem["loc"], _meta_message(problem)) for problem in problems))


def _meta_message(problem: Any) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown field; {nearest(str(problem['loc'][-1]), list(FeatureViewMeta.model_fields))}"
        case "missing":
            return "this field is required"
        case _:
            return problem["msg"].removeprefix("Value error, ")


def _model(node: Mapping[str, Any]) -> DbtModel:
    columns, name = node["columns"].values(), node.get("alias") or node["identifier"]
    return DbtModel(
        name=node["name"],
        table=f"{node['schema']}.{name}",
        description=node["description"],
        columns={column["name"]: column.get("data_type") or "" for column in columns},
        column_descriptions={column["name"]: column["description"] for column in columns},
        partition_column=node["meta"].get("partition_column"),
        file=(node.get("patch_path") or node["original_file_path"]).split("://")[-1],
        required=frozenset(
            column["name"]
            for column in columns
            if any(constraint["type"] == "not_null" for constraint in column.get("constraints") or ())
        ),
        time_zone=node["meta"].get("time_zone"),
        stated_asset=tuple(stated_asset_key(node) or ()),
    )
