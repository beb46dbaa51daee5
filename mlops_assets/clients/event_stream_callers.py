"""Callers of the embedded NATS: an account for each application that has a token, with the subjects of its solutions and no others.

The accounts are in a file of their own, which the configuration of NATS includes. It follows the file of the callers: NATS reads it again,
keeps the connections of those who stay, and ends those of a credential that was taken away. See docs/adr/0079.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from mlops_assets.access.callers import ALL_SOLUTIONS, Caller, TokenHash, read_callers
from mlops_assets.access.credentials import PLATFORM_ACCOUNT, EventStreamUser, event_stream_platform, event_stream_system_url
from mlops_assets.clients.event_stream import PREDICTIONS, REQUESTS, brief_connection_options, subject
from mlops_assets.clients.stopping import wait_for
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

_STORED, _STORED_ALIAS = f"$JS.API.STREAM.MSG.GET.{PREDICTIONS}", f"stored.{PREDICTIONS}"
_LOOK_SECONDS = 0.5
_ANSWER_SECONDS = 5.0
_RETRY_SECONDS = 10.0
_HEALTH, _RELOAD = "$SYS.REQ.SERVER.PING.HEALTHZ", "$SYS.REQ.SERVER.{}.RELOAD"
_ALL = "*"
"""In a subject: every solution."""
_SOLUTION = re.compile(r"[A-Za-z0-9_-]+")
"""Another name is of no solution, and may have a meaning in a subject: `>` is every one."""
_SHOWN_DIGITS = 8
_log = logging.getLogger(__name__)


def _user(platform: EventStreamUser, name: str, token: TokenHash) -> EventStreamUser:
    """The user of a caller with one of its tokens: each has its own, so that two are valid after a rotation.

    The password is derived from the token's hash and the platform's password, and kept with the callers no more than the token is.
    """
    password = hmac.digest(platform.password.encode(), f"{name} {token.sha256}".encode(), "sha256").hex()
    return EventStreamUser(f"{name}-{token.sha256[:_SHOWN_DIGITS]}", password)


def caller_address(settings: Settings, name: str, token: TokenHash) -> str:
    """The address of the embedded event stream with the user of a caller."""
    user, parts = _user(event_stream_platform(settings), name, token), urlsplit(settings.nats_server_url)
    return parts._replace(netloc=f"{quote(user.name)}:{user.password}@{parts.netloc}").geturl()


def write_callers(settings: Settings) -> bool:
    """Write the accounts of the callers as they are now, for NATS to read. Returns whether they changed."""
    path, text = settings.nats_callers_file, _accounts(settings, _known_callers(settings))
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return False
    # Readable by the owner alone, and complete when it gets its name: it holds passwords.
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".nats_callers.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(scratch).replace(path)
    finally:
        Path(scratch).unlink(missing_ok=True)
    return True


async def follow_callers(settings: Settings, stopping: asyncio.Event) -> None:
    """Until `stopping` is set, have the server know who may connect, as soon as that changes or a token is over."""
    is_known = False
    while not await wait_for(stopping, _LOOK_SECONDS):
        try:
            is_known = not write_callers(settings) and is_known
        except OSError as error:
            is_known = False
            _log.error("The callers of the event stream are not written to %s: %s", settings.nats_callers_file, error)
            await wait_for(stopping, _RETRY_SECONDS)
        else:
            is_known = is_known or await reload_callers(settings)


async def reload_callers(settings: Settings) -> bool:
    """Have the server read the accounts of the callers. Returns whether it did; one that is away reads them when it starts."""
    import nats
    from nats import errors

    try:
        client = await nats.connect(
            **brief_connection_options(event_stream_system_url(settings)),
            connect_timeout=_ANSWER_SECONDS,
            error_cb=_ignore,
        )
    except (errors.Error, OSError, TimeoutError):
        return False
    try:
        health = json.loads((await client.request(_HEALTH, timeout=_ANSWER_SECONDS)).data)
        # What an account that is new takes from others reaches nobody before it is read again: nats-io/nats-server#8560.
        for _ in range(2):
            answer = await client.request(_RELOAD.format(health["server"]["id"]), timeout=_ANSWER_SECONDS)
            if error := json.loads(answer.data).get("error"):
                _log.error("The event stream does not take the callers in %s: %s", settings.nats_callers_file, error)
                return True  # it goes on as before, and would say the same again
    except (errors.Error, TimeoutError):
        return False
    finally:
        await client.close()
    return True


async def _ignore(_: Exception) -> None:
    """A server that is away is no news here."""


def _known_callers(settings: Settings) -> Sequence[Caller]:
    try:
        return read_callers(settings.callers_file)
    except StackError as error:
        # As at the online server, nobody is let in then.
        _tell_once(error.problem, settings.callers_file.stat().st_mtime_ns)
        return ()


@lru_cache(maxsize=1)
def _tell_once(problem: str, written_at: int) -> None:
    """Tell what is wrong with a file of callers once, though it is looked at twice a second, and again when it was written anew."""
    _log.error("%s Only the user `caller` of the event stream is let in.", problem)


def _accounts(settings: Settings, callers: Sequence[Caller]) -> str:
    """The accounts as NATS reads them. An account each: of one, a caller could listen to what is answered to another."""
    now, platform = datetime.now(UTC), event_stream_platform(settings)
    accounts = {}
    for caller in callers:
        users = [_user(platform, caller.name, token) for token in caller.tokens if token.is_valid(now)]
        if users and (solutions := _solutions(caller)):
            accounts[f"CALLER_{caller.name}"] = _account(solutions, users)
    lines = [f"{json.dumps(name)}: {json.dumps(account)}\n" for name, account in accounts.items()]
    return "# The accounts of the callers of `mlops access`. Written by the platform.\n" + "".join(lines)


def _solutions(caller: Caller) -> list[str]:
    """The solutions of a caller as they stand in subjects; a person has none."""
    if ALL_SOLUTIONS in caller.solutions:
        return [_ALL]
    return [name for name in caller.solutions if _SOLUTION.fullmatch(name)]


def _account(solutions: Sequence[str], users: Sequence[EventStreamUser]) -> dict[str, Any]:
    """The account of a caller: it publishes requests of its solutions and hears their predictions, from the account of the platform."""
    requests, predictions = ([subject(stream, name) for name in solutions] for stream in (REQUESTS, PREDICTIONS))
    imports: list[dict[str, Any]] = [{"service": {"account": PLATFORM_ACCOUNT, "subject": each}} for each in requests]
    imports += [{"stream": {"account": PLATFORM_ACCOUNT, "subject": each}} for each in predictions]
    account: dict[str, Any] = {"imports": imports}
    publishes = list(requests)
    if _ALL in solutions:
        # A stored prediction is looked up by its number, whichever solution it is of.
        imports.append({"service": {"account": PLATFORM_ACCOUNT, "subject": _STORED}, "to": _STORED_ALIAS})
        account["mappings"] = {_STORED: _STORED_ALIAS}
        publishes += [_STORED, _STORED_ALIAS]
    permissions = {"publish": {"allow": publishes}, "subscribe": {"allow": [*predictions, "_INBOX.>"]}}
    account["users"] = [{"user": user.name, "password": user.password, "permissions": permissions} for user in users]
    return account
