"""Look-up of the online values of one entity in one feature view, for callers that want the features and no prediction."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus

import msgspec

from mlops_assets.online_store.store import FeatureRequest, OnlineStore
from mlops_assets.online_store.values import Column, Flag, Value, ViewState
from mlops_assets.serving.live import LiveSolution
from mlops_assets.serving.online.problems import InvalidRequestError, ProblemError
from mlops_assets.serving.requests import RequestError

VERSION, MOMENT = "version", "at"
"""Parameters beside the entity keys: the version of the view, and the moment at which values must not be stale."""

_WHOLE_NUMBER, _TRUTH, _TIME = (
    "a whole number",
    "true or false",
    "an ISO date and time with an offset, such as 2013-07-01T12:00:00Z",
)


class FeatureAnswer(msgspec.Struct, kw_only=True):
    """The online values of one entity; `flag` tells how they were found, `ok` or why they are null.

    `snapshot` is that of the lake which the values reflect, `event_timestamp` when they became known.
    """

    view: str
    version: int
    entity: dict[str, Value]
    flag: str
    snapshot: int | None
    event_timestamp: datetime | None
    values: dict[str, Value]


def look_up(store: OnlineStore, solutions: Mapping[str, LiveSolution], view: str, parameters: Mapping[str, str]) -> FeatureAnswer:
    """The values of the entity that `parameters` name. Raises ProblemError: 404 for a view that is not online, 422 for a wrong parameter."""
    state = _state(store, served_versions(solutions), view, parameters)
    entity = {column.name: _key(column, parameters) for column in state.view.entity}
    allowed = [*entity, VERSION, MOMENT]
    for name in parameters:
        if name not in allowed:
            raise _invalid(name, "is no parameter of this view", ", ".join(allowed))
    moment = _moment(parameters[MOMENT]) if MOMENT in parameters else datetime.now(UTC)
    [row] = store.read([FeatureRequest(view, state.view.version, None)], [entity], moment)
    view_values = row.views[view]
    return FeatureAnswer(
        view=view,
        version=state.view.version,
        entity=entity,
        flag=Flag(view_values.flag).value,
        snapshot=view_values.snapshot,
        event_timestamp=view_values.event_timestamp,
        values=row.values,
    )


def served_versions(solutions: Mapping[str, LiveSolution]) -> dict[str, int]:
    """Feature view -> the newest version of it that a champion reads online."""
    versions: dict[str, int] = {}
    for solution in solutions.values():
        if solution.champions:
            for view in solution.champions.default.contract.feature_views:
                if view.online:
                    versions[view.name] = max(view.version, versions.get(view.name, 0))
    return versions


def _state(store: OnlineStore, served: Mapping[str, int], view: str, parameters: Mapping[str, str]) -> ViewState:
    version = _whole_number(VERSION, parameters[VERSION]) if VERSION in parameters else served.get(view, 1)
    state = store.state(view, version)
    if state is None:
        known = ", ".join(f"{name} version {number}" for name, number in sorted(served.items())) or "none"
        detail = f"There is no feature view {view!r} version {version} in the online store; champions read: {known}."
        raise ProblemError(HTTPStatus.NOT_FOUND, detail, {})
    return state


def _key(column: Column, parameters: Mapping[str, str]) -> Value:
    allowed = {"string": "a text", "integer": _WHOLE_NUMBER, "boolean": _TRUTH}[column.kind]
    if column.name not in parameters:
        raise _invalid(column.name, "is missing", allowed)
    text = parameters[column.name]
    if column.kind == "integer":
        return _whole_number(column.name, text)
    if column.kind == "boolean":
        if text not in ("true", "false"):
            raise _invalid(column.name, f"is {text!r}", _TRUTH)
        return text == "true"
    return text


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _invalid(name, f"is {text!r}", _WHOLE_NUMBER) from None


def _moment(text: str) -> datetime:
    try:
        # In a query string a plus sign is a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _invalid(MOMENT, f"is {text!r}", _TIME)
    return moment


def _invalid(field: str, problem: str, allowed: str) -> InvalidRequestError:
    return InvalidRequestError(RequestError(row=None, field=field, problem=problem, allowed=allowed))
