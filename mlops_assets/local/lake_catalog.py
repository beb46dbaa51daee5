"""The catalog of the lake at each start: written when there is none, and told where the state folder is."""

from functools import partial

from mlops_assets.core.errors import AwayError, StackError
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY, LAKE_DATABASE, Settings
from mlops_assets.local import postgres, prepare


def ensure_catalog(settings: Settings) -> None:
    """Have the catalog of the lake name the place of its files, which may have been moved since. Postgres must answer.

    Waits for an object store that is away. Raises StackError when it stays so, and when the files that the catalog names are not in that place.
    """
    from mlops_assets.lake.catalog_files import follow_files
    from mlops_assets.lake.lake import Lake
    from mlops_assets.lake.tables import LakeError

    lake = Lake.from_settings(settings)
    if not postgres.has_table(settings, LAKE_DATABASE, "ducklake_metadata"):
        # Written once and first: a reader cannot, and two writers that both did would collide.
        prepare.install_duckdb_extensions(DUCKDB_EXTENSION_DIRECTORY)
        try:
            lake.connect(read_only=False).close()
        except LakeError as error:
            raise StackError(str(error), remedy="Correct the cause, then try again: mlops up") from error
        return
    try:
        patiently(partial(follow_files, lake))
    except AwayError as error:
        raise StackError(str(error), remedy="Start it, or correct AWS_ENDPOINT_URL_S3 and MLOPS_STORAGE.") from error
    except LakeError as error:
        place = settings.lake_location
        raise StackError(
            str(error),
            remedy=f"Copy these files to {place} (`aws s3 sync`), or correct MLOPS_STORAGE."
            if settings.storage
            else "Set MLOPS_HOME to the state folder that this Postgres belongs to, or copy the folder `lake` of it into this one.",
        ) from error
