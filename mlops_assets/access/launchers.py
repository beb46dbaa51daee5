"""Persons who launch runs of Dagster, as tags of the runs. Who signed in is written by the server, over whatever a request says."""

import os
import pwd
from typing import Any

from mlops_assets.access.identities import IDENTITY, Identity

LAUNCHED_BY_TAG, IDENTIFIED_BY_TAG = "mlops/launched_by", "mlops/identified_by"
"""Who launched a run, and what vouches for the name. Runs of sensors, schedules and conditions have neither."""

SYSTEM_USER, SIGN_IN = "operating system", "sign-in"

OWNER = "owner"
"""The name of whoever opened Dagster by the owner's link, which any number of persons may hold."""


def system_user() -> str:
    """The user whose process this is. Not by a variable of the environment, which anybody may set; in a container it may have no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def system_user_tags() -> dict[str, str]:
    """The tags of a run that a command launches."""
    return {LAUNCHED_BY_TAG: system_user(), IDENTIFIED_BY_TAG: SYSTEM_USER}


def signed_in_tags(source: Any) -> dict[str, str]:
    """The tags of a run that a request to Dagster's webserver launches; none for one with the owner's token, whose tags stay.

    `source` is the connection of the request, anything else in a process that answers none.
    """
    identity: Identity | None = getattr(source, "scope", {}).get(IDENTITY)
    if identity is None or (identity.name == OWNER and not identity.has_session):
        return {}
    return {LAUNCHED_BY_TAG: identity.name, IDENTIFIED_BY_TAG: SIGN_IN}
