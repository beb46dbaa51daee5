"""What each role may do at Dagster and MLflow, and the record of what was done: between the guard and the application."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlops_assets.access.audit import audited
from mlops_assets.access.exchange import Application, Receive, Scope, Send, refuse
from mlops_assets.access.identities import IDENTITY, Identity

MAXIMUM_QUERY_BYTES = 8 << 20
"""A query of GraphQL has at most so many bytes: it is read whole before it is passed on."""

_READS = ("GET", "HEAD", "OPTIONS")
_SEARCH = re.compile(r"/(ajax-)?api/\d\.\d/mlflow/[\w/-]*\bsearch[\w-]*|/graphql")
"""What MLflow's pages ask by POST without changing anything."""


class DagsterDoor:
    """The door of Dagster. A viewer mutates nothing; each mutation of anybody else is in the audit log.

    GraphQL comes as JSON by POST, and by WebSocket, which takes subscriptions alone: Dagster also runs mutations that a GET asks for.
    """

    def __init__(self, application: Application, audit_log: Path):
        self._application, self._audit_log = application, audit_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is refused."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        identity: Identity = scope[IDENTITY]
        if scope["path"].rstrip("/") != "/graphql":
            await _change(self._application, self._audit_log, "Dagster", scope, receive, send)
        elif scope["method"] != "POST":
            if b"query=" in scope["query_string"]:
                await refuse(scope, send, HTTPStatus.METHOD_NOT_ALLOWED, "GraphQL is asked by POST.")
            else:
                await self._application(scope, receive, send)
        elif (body := await _read(receive)) is None:
            await refuse(scope, send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A query has at most {MAXIMUM_QUERY_BYTES} bytes.")
        elif (query := _query(scope, body)) is None:
            await refuse(
                scope, send, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "GraphQL is asked with a JSON object that has a `query`."
            )
        elif not (mutations := _mutations(query)):
            await self._application(scope, _again(body, receive), send)
        elif identity.role != "operator":
            await refuse(
                scope, send, HTTPStatus.FORBIDDEN, f"{identity.name} looks only, and may not ask for {', '.join(mutations)}."
            )
        else:
            details = {"mutations": mutations, "variables": _variables(body)}
            await _record(self._application, self._audit_log, "Dagster", details, scope, _again(body, receive), send)


class ViewersDoor:
    """A door before another one, behind which everybody is a viewer."""

    def __init__(self, application: Application):
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if identity := scope.get(IDENTITY):
            scope[IDENTITY] = replace(identity, role="viewer")
        await self._application(scope, receive, send)


class MlflowDoor:
    """The door of MLflow. A viewer changes nothing; each change of a person is in the audit log.

    Those with the owner's token are not: runs record what they do, thousands of times.
    """

    def __init__(self, application: Application, audit_log: Path):
        self._application, self._audit_log = application, audit_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is refused."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        identity: Identity = scope[IDENTITY]
        is_of_run = identity.name == "owner" and not identity.has_session
        if is_of_run or (scope["method"] == "POST" and _SEARCH.fullmatch(scope["path"])):
            await self._application(scope, receive, send)
        else:
            await _change(self._application, self._audit_log, "MLflow", scope, receive, send)


async def _change(application: Application, audit_log: Path, door: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on what reads; refuse or record what may change something."""
    identity: Identity = scope[IDENTITY]
    if scope["method"] in _READS:
        await application(scope, receive, send)
    elif identity.role != "operator":
        await refuse(scope, send, HTTPStatus.FORBIDDEN, f"{identity.name} looks only, and may not send {scope['method']}.")
    else:
        await _record(application, audit_log, door, {}, scope, receive, send)


async def _record(
    application: Application, audit_log: Path, door: str, details: Mapping[str, Any], scope: Scope, receive: Receive, send: Send
) -> None:
    """Pass the request on, between its two lines in the audit log."""
    identity: Identity = scope[IDENTITY]
    action = f"{scope['method']} {scope['path']}"
    actor = identity.name if identity.has_session else f"{identity.name} (token)"
    with audited(
        audit_log, actor=actor, role=identity.role, door=door, action=action, details=dict(details), is_required=True
    ) as outcome:

        async def watch(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                outcome.append(f"answered {message['status']}")
            await send(message)

        await application(scope, receive, watch)


async def _read(receive: Receive) -> bytes | None:
    """The body of the request, None when it is too long."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAXIMUM_QUERY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read to who reads it next, and then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Any:
        return waiting.pop() if waiting else await receive()

    return give


def _query(scope: Scope, body: bytes) -> str | None:
    """The query of a request that Dagster would read as this one and no other."""
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != b"application/json":
        return None
    try:
        query = json.loads(body)["query"]
    except (ValueError, TypeError, KeyError):
        return None
    return query if isinstance(query, str) else None


def _mutations(query: str) -> list[str]:
    """The mutations that a query asks for, whichever of its operations is run. What is no GraphQL asks for none: it is not run."""
    if "mutation" not in query:
        return []
    from graphql import GraphQLError, parse
    from graphql.language import FieldNode, OperationDefinitionNode, OperationType

    try:
        document = parse(query)
    except GraphQLError:
        return []
    operations = [
        definition
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode) and definition.operation is OperationType.MUTATION
    ]
    names = [
        selection.name.value if isinstance(selection, FieldNode) else "a fragment"
        for operation in operations
        for selection in operation.selection_set.selections
    ]
    return sorted(set(names))


_LOGGED_CHARACTERS = 2000


def _variables(body: bytes) -> str:
    """The variables of a query as JSON, cut where they are long."""
    variables = json.loads(body).get("variables")
    return json.dumps(variables, ensure_ascii=False)[:_LOGGED_CHARACTERS]
