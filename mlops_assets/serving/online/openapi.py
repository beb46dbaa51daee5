"""The description of the API, made of the contracts that serve, as OpenAPI 3.1. The page that shows it is in `documentation`.

The types of a request are those that decode it (`serving/requests.py`), so that the description cannot say something else.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mlops_assets.core.environment_files import environment_prefix
from mlops_assets.schema.column_names import FEATURES
from mlops_assets.serving.contract import CategoricalFeature, Contract, NumericFeature
from mlops_assets.serving.live import LiveSolution, Model
from mlops_assets.serving.online.feature_lookup import MOMENT, VERSION, FeatureAnswer, served_versions
from mlops_assets.serving.online.predictor import Answer
from mlops_assets.serving.online.problems import CONTENT_TYPE, Problem

_REFERENCE = "#/components/schemas/{name}"
_TEXT_EXAMPLE = "example"
_ERRORS = {
    "400": "The body is not JSON, or neither an object nor an array.",
    "401": "The token is missing or wrong.",
    "403": "The caller may not ask this solution.",
    "404": "There is no such solution or view online.",
    "408": "The body did not arrive in time.",
    "413": "The body is too long.",
    "422": "A field is wrong: which one, what is wrong, and what is allowed.",
    "429": "The server is busy, or the caller asks too often: try again after `Retry-After` seconds.",
    "503": "The solution has no champion, or the server cannot answer in time: try again after `Retry-After` seconds.",
    "504": "A model in workers did not answer in time: try again after `Retry-After` seconds.",
}


def describe(solutions: Mapping[str, LiveSolution]) -> dict[str, Any]:
    """The OpenAPI document of what serves now."""
    served = {
        name: solution.champions.default
        for name, solution in sorted(solutions.items())
        if solution.options.online and solution.champions
    }
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {
        "/livez": {"get": _operation("The process runs.", "Health", {"200": _response("It does.", "text/plain")})},
        "/readyz": {
            "get": _operation(
                "What this process serves.",
                "Health",
                {"200": _response("Ready, and what serves."), "503": _response("The process is about to end.")},
            )
        },
        "/metrics": {
            "get": _guarded("Numbers for Prometheus, of all processes.", "Health", _response("Text.", "text/plain"), ("401",))
        },
    }
    for name, model in served.items():
        request, components = _request(model)
        schemas |= components
        paths[f"/{name}/predict"] = {"post": _prediction(name, model.contract, request)}
        paths[f"/{name}/model"] = {
            "get": _guarded(
                f"The version of {name} that answers, and its contract.", name, _response("The model."), ("401", "404", "503")
            )
        }
    for view, version in sorted(served_versions(solutions).items()):
        paths[f"/features/{view}"] = {"get": _lookup(view, version, served.values())}
    _, shared = msgspec.json.schema_components([Answer, FeatureAnswer, Problem], ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{environment_prefix()}Predictions",
            "version": ", ".join(f"{name} {model.contract.version}" for name, model in served.items()) or "0",
            "description": "Predictions of the champions. Made of the contracts of the versions that serve now.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas | shared,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _request(model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a request, and the schemas that it refers to, with the values that training saw."""
    contract = model.contract
    [request], components = msgspec.json.schema_components([model.decoder.request_type], ref_template=_REFERENCE)
    features = {feature.name: feature for feature in contract.features}
    for schema in components.values():
        for field, described in schema["properties"].items():
            if feature := features.get(field):
                described["description"] = _seen(feature)
    return request, components


def _prediction(name: str, contract: Contract, request: dict[str, Any]) -> dict[str, Any]:
    """The operation that predicts. The examples are made of the contract: nobody's data."""
    row = _example(contract)
    content = {
        "schema": request,
        "examples": {"one row": {"value": row}, "several rows": {"value": [row, row]}},
    }
    answer = {"$ref": _REFERENCE.format(name="Answer")}
    operation = _guarded(
        f"Predict one row of {name}, or up to 1000 (version {contract.version}, {contract.problem.replace('_', ' ')}).",
        name,
        _response(
            "The prediction, or those of all rows in their order.", schema={"anyOf": [answer, {"type": "array", "items": answer}]}
        ),
        tuple(_ERRORS),
    )
    return operation | {"requestBody": {"required": True, "content": {"application/json": content}}}


def _lookup(view: str, version: int, models: Iterable[Model]) -> dict[str, Any]:
    """The operation that looks up the features of one entity."""
    contracts = [model.contract for model in models]
    types = {column.name: column.type for contract in contracts for column in contract.entity_keys}
    entity = next(
        feature_view.entity for contract in contracts for feature_view in contract.feature_views if feature_view.name == view
    )
    kinds = {name: "integer" if "INT" in types[name].upper() else "string" for name in entity}
    parameters = [
        _parameter(name, {"type": kind}, f"Key of the entity, {types[name]}.", required=True) for name, kind in kinds.items()
    ]
    parameters += [
        _parameter(VERSION, {"type": "integer"}, f"Version of the view; left out: {version}.", required=False),
        _parameter(
            MOMENT,
            {"type": "string", "format": "date-time"},
            "Staleness is measured at this moment; left out: now.",
            required=False,
        ),
    ]
    answer = _response("The values, null with the reason in `flag`.", schema={"$ref": _REFERENCE.format(name="FeatureAnswer")})
    summary = f"Online values of the features of one entity of {view}."
    return _guarded(summary, "Features", answer, ("401", "404", "422")) | {"parameters": parameters}


def _parameter(name: str, schema: dict[str, str], description: str, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": description}


def _example(contract: Contract) -> dict[str, Any]:
    """A row with typical values."""
    features = {feature.name: feature for feature in contract.features}
    row: dict[str, Any] = {}
    for column in (contract.key, *contract.entity_keys, *contract.request_columns):
        feature = features.get(column.name)
        if isinstance(feature, CategoricalFeature):
            row[column.name] = next((value for value in feature.categories if value), _TEXT_EXAMPLE)
        elif feature is not None:
            middle = ((feature.minimum or 0) + (feature.maximum or 0)) / 2
            row[column.name] = middle if feature.type in ("double", "float") else int(middle)
        else:
            row[column.name] = 1 if "INT" in column.type.upper() else _TEXT_EXAMPLE
    offline = {name: None for view in contract.feature_views if not view.online for name in view.features}
    return row | ({FEATURES: offline} if offline else {})


def _seen(feature: NumericFeature | CategoricalFeature) -> str:
    if isinstance(feature, NumericFeature):
        return (
            "Training saw no value." if feature.minimum is None else f"Training saw {feature.minimum:g} to {feature.maximum:g}."
        )
    categories = ", ".join(value for value in feature.categories[:20] if value)
    return f"Training saw {categories}{', ...' if len(feature.categories) > 20 else ''}."


def _guarded(summary: str, tag: str, success: dict[str, Any], errors: tuple[str, ...]) -> dict[str, Any]:
    problem = {"$ref": _REFERENCE.format(name="Problem")}
    responses = {"200": success, **{status: _response(_ERRORS[status], CONTENT_TYPE, problem) for status in errors}}
    return _operation(summary, tag, responses) | {"security": [{"token": []}]}


def _operation(summary: str, tag: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "tags": [tag], "responses": responses}


def _response(description: str, media_type: str = "application/json", schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema or {}}}}
