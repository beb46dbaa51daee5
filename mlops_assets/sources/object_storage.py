"""Access to the files of sources in S3, or in a store with its interface, by the variables that the tools of AWS read."""

import duckdb

from mlops_assets.lake.object_secret import ObjectSecretError, grant_access
from mlops_assets.sources.extract import SourceError

SCHEMES = ("s3://",)


def open_object_storage(connection: duckdb.DuckDBPyConnection, label: str) -> None:
    """Let `connection` read `label`, a URL in object storage.

    Credentials are found as the tools of AWS find them: in `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN`),
    a profile, a web identity or the role of the machine. `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` names another store. Raises
    SourceError when the extension of DuckDB is not installed, a variable has no possible value, or there are no credentials.
    """
    try:
        grant_access(connection, name="mlops_sources", scope="s3://")
    except ObjectSecretError as error:
        raise SourceError(f"{label}: {error}") from None
