"""Where this installation keeps its state and finds its servers: environment variables with their defaults, and nothing else.

Every process reads the same few variables through `Settings.from_environment`; no other module reads `MLOPS_*`.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

PROJECT_ROOT = Path(__file__).resolve().parents[1]
DBT_PROJECT_DIRECTORY = PROJECT_ROOT / "dbt_project"
DUCKDB_EXTENSION_DIRECTORY = Path(sys.prefix) / "share" / "duckdb_extensions"

DAGSTER_DATABASE = "dagster"
MLFLOW_DATABASE = "mlflow"
LAKE_DATABASE = "lake"
DATABASES = (DAGSTER_DATABASE, MLFLOW_DATABASE, LAKE_DATABASE)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The state folder, the server addresses and the ports of one installation.

    `postgres_url` and `nats_url` are None when the embedded servers of the local stack are used.
    """

    home: Path
    postgres_url: str | None = None
    nats_url: str | None = None
    dagster_port: int = 3000
    mlflow_port: int = 5000
    nats_port: int = 4222

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read `MLOPS_*`. Raises ValueError naming the variable when a port is not a number from 1 to 65535."""
        return cls(
            home=Path(environment.get("MLOPS_HOME") or PROJECT_ROOT / ".mlops").expanduser().resolve(),
            postgres_url=environment.get("MLOPS_POSTGRES_URL") or None,
            nats_url=environment.get("MLOPS_NATS_URL") or None,
            dagster_port=_port(environment, "MLOPS_DAGSTER_PORT", cls.dagster_port),
            mlflow_port=_port(environment, "MLOPS_MLFLOW_PORT", cls.mlflow_port),
            nats_port=_port(environment, "MLOPS_NATS_PORT", cls.nats_port),
        )

    @property
    def postgres_directory(self) -> Path:
        """Data folder of the embedded Postgres; its Unix socket is in it."""
        return self.home / "postgres"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder (`DAGSTER_HOME`)."""
        return self.home / "dagster"

    @property
    def lake_directory(self) -> Path:
        """Folder of the lake's Parquet files."""
        return self.home / "lake"

    @property
    def dagster_url(self) -> str:
        """Address of the Dagster webserver."""
        return f"http://127.0.0.1:{self.dagster_port}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow tracking server."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    def postgres_connection_string(self, database: str) -> str:
        """The libpq keyword string of `database`, as psycopg2 and DuckDB take it."""
        if self.postgres_url is None:
            return f"dbname={database} user=postgres host={self.postgres_directory}"
        url = urlsplit(self.postgres_url)
        parts = {
            "dbname": database,
            "user": unquote(url.username or ""),
            "password": unquote(url.password or ""),
            "host": url.hostname or "",
            "port": str(url.port or ""),
        }
        return " ".join(f"{key}={value}" for key, value in parts.items() if value)

    def sqlalchemy_url(self, database: str) -> str:
        """The SQLAlchemy URL of `database`, with the psycopg2 driver that dagster-postgres ships."""
        if self.postgres_url is None:
            return f"postgresql+psycopg2://postgres:@/{database}?host={quote(str(self.postgres_directory), safe='')}"
        url = urlsplit(self.postgres_url)
        return url._replace(scheme="postgresql+psycopg2", path=f"/{database}").geturl()


def _port(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"{variable}={text!r} is not a port: set it to a number from 1 to 65535, or unset it for {default}.")
    return int(text)
