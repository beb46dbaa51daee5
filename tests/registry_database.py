"""Empty databases of MLflow for registries without a server: its hundred migrations take two seconds of a processor each time. No tests here."""

import atexit
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path


def new_registry_url(folder: Path) -> str:
    """The address of an empty database of MLflow in `folder`."""
    database = folder / "mlflow.db"
    shutil.copyfile(_migrated(), database)
    return f"sqlite:///{database}"


@cache
def _migrated() -> Path:
    """A database that has all of MLflow's tables. Artifacts of experiments that are made later lie in the folder of their time."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = Path(tempfile.mkdtemp(prefix="registry."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", "./mlruns")
    store.engine.dispose()
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "mlflow.db"
