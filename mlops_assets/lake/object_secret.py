"""The right of a DuckDB connection to read and write in object storage."""

import os
from urllib.parse import urlsplit

import duckdb

from mlops_assets.core.object_storage import StoreAccess
from mlops_assets.lake.sql import literal
from mlops_assets.lake.tables import LakeError

_STYLES = {"path": "path", "virtual": "vhost"}

_RETRIES, _FIRST_WAIT_MILLISECONDS, _BACKOFF = 8, 200, 2
"""DuckDB asks again for 50 s."""


class ObjectSecretError(LakeError):
    """The environment has no access to object storage; the message names what it lacks."""


def grant_access(connection: duckdb.DuckDBPyConnection, *, name: str, scope: str) -> None:
    """Let `connection` use the objects below `scope`, an address `s3://`, with the credentials that AWS's tools would find.

    They are in no statement: DuckDB's extension `aws` finds them. Raises ObjectSecretError when it is not installed, a variable has no possible
    value, or there are no credentials.
    """
    try:
        connection.execute("LOAD aws")
    except duckdb.IOException:
        raise ObjectSecretError("S3 needs the extra `s3`: install mlops-assets[s3], then run `mlops prepare`.") from None
    try:
        access = StoreAccess.from_environment(os.environ)
    except ValueError as error:
        raise ObjectSecretError(str(error)) from None
    options = {"SCOPE": literal(scope), "URL_STYLE": literal(_STYLES[access.style])}
    if access.region:
        options["REGION"] = literal(access.region)
    if access.endpoint:
        address = urlsplit(access.endpoint)
        options |= {"ENDPOINT": literal(address.netloc), "USE_SSL": str(address.scheme == "https").lower()}
    stated = ", ".join(f"{option} {value}" for option, value in options.items())
    try:
        connection.execute(f"CREATE OR REPLACE TEMPORARY SECRET {name} (TYPE s3, PROVIDER credential_chain, {stated})")
        # DuckDB copied them from the environment into settings that every query can read.
        connection.execute("SET s3_secret_access_key = ''; SET s3_session_token = ''; SET s3_access_key_id = ''")
    except duckdb.Error:
        raise ObjectSecretError(
            "there are no credentials for S3. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment or in .env, "
            "or give the machine a role."
        ) from None


def grant_lake(connection: duckdb.DuckDBPyConnection, data_path: str, branched: str | None) -> None:
    """Let `connection` use the lake's files in `data_path` and `branched`, where that is in object storage, and wait for a store that is away.

    Raises ObjectSecretError as `grant_access` does.
    """
    addresses = {"mlops_lake": data_path, "mlops_branched_lake": f"{branched}/" if branched else ""}
    for name, address in addresses.items():
        if not address.startswith("s3://"):
            continue
        connection.execute(f"SET http_retries = {_RETRIES}; SET http_retry_wait_ms = {_FIRST_WAIT_MILLISECONDS}")
        connection.execute(f"SET http_retry_backoff = {_BACKOFF}")
        grant_access(connection, name=name, scope=address)
