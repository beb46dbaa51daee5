"""Secrets that are searched for in all that an installation leaves, and a Postgres whose password is one of them. No tests here."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg2
from waiting import wait_for

from mlops_assets.core.settings import Settings
from mlops_assets.core.sign_on import SignOn
from mlops_assets.local import postgres
from mlops_assets.local.permissions import PRIVATE_UMASK

POSTGRES_PASSWORD = "canary:postgres\\ pass'word"
SERVING_TOKEN = "canary-serving-token"
NOTIFICATION_PASSWORD = "canary-notification-password"
CLIENT_SECRET = "canary-openid-client-secret"
SOURCE_SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "canary-source-key",
    "SOURCE_URL": "postgresql://me:canary-source-password@127.0.0.1:1/x",
}
"""Of sources, in the environment of the stack."""

ALL = {
    "password of Postgres": POSTGRES_PASSWORD,
    "quoted password of Postgres": quote(POSTGRES_PASSWORD, safe=""),
    "token of callers": SERVING_TOKEN,
    "secret of the OpenID client": CLIENT_SECRET,
    "address of notifications": NOTIFICATION_PASSWORD,
    "key of a source": SOURCE_SECRETS["AWS_SECRET_ACCESS_KEY"],
    "password of a source": "canary-source-password",
}


@contextlib.contextmanager
def own_postgres(settings: Settings) -> Iterator[str]:
    """A Postgres that is not the platform's and wants a password, in the state folder of other settings. Yields its address."""
    postgres.initialise_data_directory(settings)
    directory = settings.postgres_directory
    command = [str(postgres.executable()), "-D", str(directory), "-k", str(directory), "-c", "listen_addresses="]
    command += ["-c", "max_connections=200", "-c", "unix_socket_permissions=0700"]
    with (settings.home / "postgres.log").open("w") as log:
        server = subprocess.Popen(
            command, user=postgres.user_for_supervisor(), cwd=directory, stdout=log, stderr=log, umask=PRIVATE_UMASK
        )
    try:
        wait_for(lambda: _set_password(directory))
        yield f"postgresql://postgres:{quote(POSTGRES_PASSWORD, safe='')}@/postgres?host={directory}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def with_canaries(settings: Settings, postgres_url: str) -> Settings:
    """The settings with a canary as every secret that a person sets. Nobody listens where notifications go, and no provider answers."""
    notified = (f"json://me:{NOTIFICATION_PASSWORD}@127.0.0.1:1/",)
    sign_on = SignOn(issuer="http://127.0.0.1:1", client_id="mlops", client_secret=CLIENT_SECRET, viewers=("staff",))
    return replace(settings, postgres_url=postgres_url, serving_token=SERVING_TOKEN, notify_urls=notified, sign_on=sign_on)


def _set_password(directory: Path) -> bool:
    """Set the password, and want it from then on. Returns False while the server starts."""
    try:
        connection = psycopg2.connect(dbname="postgres", user="postgres", host=str(directory))
    except psycopg2.OperationalError:
        return False
    connection.autocommit = True
    rules = directory / "pg_hba.conf"
    rules.write_text(re.sub(r"\btrust$", "scram-sha-256", rules.read_text(), flags=re.MULTILINE))
    connection.cursor().execute("ALTER USER postgres PASSWORD %s", [POSTGRES_PASSWORD])
    connection.cursor().execute("SELECT pg_reload_conf()")
    connection.close()
    return True


def found_in(secrets: Mapping[str, str], texts: Iterable[str]) -> set[str]:
    """The names of the secrets that are in a text."""
    return {name for text in texts for name, secret in secrets.items() if secret in text}
