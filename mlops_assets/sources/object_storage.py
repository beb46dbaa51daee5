"""Access to the files of sources in S3, or in a store with its interface, by the variables that the tools of AWS read."""

import os
from urllib.parse import urlsplit

import duckdb

from mlops_assets.lake.sql import literal
from mlops_assets.sources.extract import SourceError

SCHEMES = ("s3://",)

_URL_STYLES = {"path": "path", "virtual": "vhost"}
_STYLE_VARIABLE = "AWS_S3_ADDRESSING_STYLE"


def open_object_storage(connection: duckdb.DuckDBPyConnection, label: str) -> None:
    """Let `connection` read `label`, a URL in object storage.

    Credentials are found as the tools of AWS find them: in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN`),
    a profile, a web identity or the role of the machine. `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` names another store. Raises
    SourceError when the extension of DuckDB is not installed, a variable has no possible value, or there are no credentials.
    """
    try:
        connection.execute("LOAD aws")
    except duckdb.IOException:
        raise SourceError(
            f"{label}: S3 needs the extra `s3`: install mlops-assets[s3], then run `mlops prepare`. A file that everybody may read has an "
            "address with https://, which needs none."
        ) from None
    stated = ", ".join(f"{name} {value}" for name, value in _secret(label).items())
    try:
        connection.execute(f"CREATE OR REPLACE TEMPORARY SECRET mlops_sources (TYPE s3, PROVIDER credential_chain, {stated})")
    except duckdb.Error:
        raise SourceError(
            f"{label}: there are no credentials for S3. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment or "
            "in .env, or give the machine a role."
        ) from None


def _secret(label: str) -> dict[str, str]:
    """The options of DuckDB's secret beside the credentials."""
    environment = os.environ
    options = {}
    if region := environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"):
        options["REGION"] = literal(region)
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if endpoint:
        address = urlsplit(endpoint)
        if address.scheme not in ("http", "https") or not address.netloc or address.path.strip("/"):
            raise SourceError(
                f"{label}: the endpoint {endpoint!r} is not http://host:port or https://host:port; correct AWS_ENDPOINT_URL_S3."
            )
        options |= {"ENDPOINT": literal(address.netloc), "USE_SSL": str(address.scheme == "https").lower()}
    style = environment.get(_STYLE_VARIABLE) or ("path" if endpoint else "virtual")
    if style not in _URL_STYLES:
        raise SourceError(f"{label}: {_STYLE_VARIABLE}={style!r} is neither path nor virtual.")
    return options | {"URL_STYLE": literal(_URL_STYLES[style])}
