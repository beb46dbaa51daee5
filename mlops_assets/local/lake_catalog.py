"""The catalog of the lake at each start: written when there is none, and told where the state folder is."""

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, LAKE_DATABASE, Settings
from mlops_assets.local import postgres, prepare


def ensure_catalog(settings: Settings) -> None:
    """Have the catalog of the lake name the state folder, which may have been moved since. Postgres must answer.

    Raises StackError when the files that it names are not in the state folder.
    """
    from mlops_assets.lake.catalog_files import follow_folder
    from mlops_assets.lake.lake import Lake
    from mlops_assets.lake.tables import LakeError

    if not postgres.has_table(settings, LAKE_DATABASE, "ducklake_metadata"):
        # Written once and first: a reader cannot, and two writers that both did would collide.
        prepare.install_duckdb_extensions(DUCKDB_EXTENSION_DIRECTORY)
        Lake.from_settings(settings).connect(read_only=False).close()
        return
    try:
        follow_folder(settings.postgres_connection_string(LAKE_DATABASE), settings.lake_directory)
    except LakeError as error:
        raise StackError(
            str(error),
            remedy="Set MLOPS_HOME to the state folder that this Postgres belongs to, or copy the folder `lake` of it into this one.",
        ) from error
