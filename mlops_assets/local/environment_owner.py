"""Which environment a state is of: its folder, and each server and storage elsewhere, serve one, and no other writes there.

The first start writes the name down.
"""

from functools import partial

from mlops_assets.clients.champion import RegistryRefusesError
from mlops_assets.clients.registry_owner import claim_registry
from mlops_assets.core.environment_files import OWNER_FILE, environment_name, refuse_other_environment
from mlops_assets.core.errors import AwayError, StackError
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import LAKE_DATABASE, Settings

TABLE = "mlops_environment"
"""Of the database of the lake. It is in no backup: a backup may be restored for another environment."""


def check_folder(settings: Settings) -> None:
    """Raise StackError when the state folder is of another environment, or somebody else's."""
    try:
        owner = (settings.home / OWNER_FILE).read_text().strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StackError(
            f"The state folder {settings.home} cannot be read: {error.strerror}.",
            remedy="Set MLOPS_HOME to a folder that you own.",
        ) from error
    refuse_other_environment(f"The state in {settings.home}", owner)


def claim_folder(settings: Settings) -> None:
    """Have the state folder, which exists, be of this environment. Raises StackError when it is of another one."""
    check_folder(settings)
    file = settings.home / OWNER_FILE
    if not file.exists():
        # Complete when it gets its name: a start may be killed.
        scratch = settings.home / f".{OWNER_FILE}"
        scratch.write_text(f"{environment_name()}\n")
        scratch.replace(file)


def claim_servers(settings: Settings) -> None:
    """Have a Postgres elsewhere and an object storage be of this environment. Raises StackError when one is of another."""
    if settings.postgres_url is not None:
        refuse_other_environment("The Postgres of MLOPS_POSTGRES_URL", _owner_of_postgres(settings))
    if settings.storage is not None:
        from mlops_assets.core.object_storage import ObjectFolder

        folder = ObjectFolder(settings.storage)
        try:
            owner = patiently(partial(folder.read, OWNER_FILE))
        except AwayError as error:
            raise StackError(str(error), remedy="Start it, or correct AWS_ENDPOINT_URL_S3 and MLOPS_STORAGE.") from error
        if owner is None:
            folder.write(OWNER_FILE, environment_name().encode())
        else:
            refuse_other_environment(settings.storage, owner.decode().strip())


def claim_stores(settings: Settings) -> None:
    """Have a Redis and an MLflow elsewhere be of this environment. Raises StackError when one is of another, or does not answer."""
    if settings.redis_url is not None:
        from mlops_assets.online_store.redis_store import RedisStore
        from mlops_assets.online_store.values import OnlineStoreError

        try:
            owner = RedisStore(settings.redis_url).claim(environment_name())
        except OnlineStoreError as error:
            raise StackError(str(error), remedy="Then try again: mlops up") from error
        refuse_other_environment("The Redis of MLOPS_REDIS_URL", owner)
    if settings.mlflow_server is not None:
        try:
            owner = patiently(partial(_claim_registry, settings))
        except AwayError as error:
            raise StackError(str(error), remedy="Start it, or correct MLOPS_MLFLOW_URL.") from error
        refuse_other_environment("The MLflow of MLOPS_MLFLOW_URL", owner)


def _claim_registry(settings: Settings) -> str:
    """The environment that an MLflow elsewhere is of. Raises StackError when it knows another token, which waiting does not change."""
    try:
        return claim_registry(settings, environment_name())
    except RegistryRefusesError as error:
        remedy = f"Correct MLOPS_MLFLOW_URL, or have that server know the token in {settings.access_token_file}."
        raise StackError(str(error), remedy=remedy) from error


def _owner_of_postgres(settings: Settings) -> str:
    """The environment that its table names, which is this one where none did."""
    from contextlib import closing

    import psycopg2

    connection = psycopg2.connect(settings.postgres_connection_string(LAKE_DATABASE))
    with closing(connection), connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (only_row boolean PRIMARY KEY CHECK (only_row), name text NOT NULL)")
        cursor.execute(f"INSERT INTO {TABLE} VALUES (true, %s) ON CONFLICT DO NOTHING", (environment_name(),))
        cursor.execute(f"SELECT name FROM {TABLE}")
        [[name]] = cursor.fetchall()
        return str(name)
