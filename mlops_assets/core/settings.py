"""The settings of an installation: its state folder and its servers, from environment variables with their defaults.

Every process reads the same few variables through `Settings.from_environment`, from its environment or from the files of the project;
no other module but that of the project reads `MLOPS_*`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from mlops_assets.core.branches import BRANCHED_STORAGE_VARIABLE
from mlops_assets.core.environment_files import environment_variables
from mlops_assets.core.environment_values import read_choice, read_count, read_port, read_switch
from mlops_assets.core.listening import Listening
from mlops_assets.core.object_storage import read_storage
from mlops_assets.core.postgres_address import connection_string, keywords, sqlalchemy_address
from mlops_assets.core.project import current_project
from mlops_assets.core.sign_on import SignOn

DUCKDB_EXTENSION_DIRECTORY = Path(sys.prefix) / "share" / "duckdb_extensions"

DAGSTER_DATABASE = "dagster"
MLFLOW_DATABASE = "mlflow"
LAKE_DATABASE = "lake"
SEARCH_DATABASE = "search"
DATABASES = (DAGSTER_DATABASE, MLFLOW_DATABASE, LAKE_DATABASE, SEARCH_DATABASE)

DURABILITIES = ("fsync", "buffered")

PROCESS, RAY = "process", "ray"
ENGINES = (PROCESS, RAY)

PODS = "pods"
STEPS = (PROCESS, PODS)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The state folder, the server addresses and the ports of one installation.

    `postgres_url`, `nats_url` and `mlflow_server` are None when the servers of the local stack are used; with `dagster_server` and
    `serving_server` there is no local stack: somebody else runs all servers. Without `redis_url` the online
    feature store is a file in the state folder, and without `serving_token` the token of the online server is in one too.
    `notify_urls` are Apprise's addresses of those who are told what happens. `sensor_seconds` is the longest interval of a sensor; with None
    each has its own.
    With `warm_runs`, the processes of runs are forked from one that has loaded everything, which takes memory once; without, each loads it.
    With `steps` `pods`, each step of a run is a pod of Kubernetes; else all share the process of the run.
    With `durability` `fsync`, what was acknowledged survives a power failure; `buffered`, the end of processes.
    With `storage`, `s3://bucket/prefix`, the files of the lake, MLflow's artifacts, bundles and reports are there; else in the state folder.
    A branch environment reads files of the lake that it is of below `branched_storage`, where that one has them in object storage.
    The backup of an upgrade goes to `backup_folder`; backups are encrypted to the `backup_recipients` of age.
    With `engine` `ray`, work that splits into parts runs on the Ray cluster at `ray_address`, or on one of this machine; with the address
    alone, the trials of searches do. A task there has `task_memory_gb`. Rows of features are worked on in parts
    of about `part_values` values; with None of as many as suit one process. `bundle_store` names where bundles lie, and
    `kept_bundles` is how many of the newest stay there though nobody needs them. Every snapshot of the lake stays for
    `kept_snapshot_days`, that of the values of a prediction for `kept_trace_days`, and a file of the lake that nothing names for
    `file_grace_hours`. Logs of runs, and MLflow's runs of refused candidates, stay for `kept_run_days`, HTML reports for `kept_report_days`.
    Only with `openlineage_url` does anything send OpenLineage events: to a receiver, or to a file.
    """

    home: Path
    listening: Listening = field(default_factory=Listening)
    sign_on: SignOn | None = None
    postgres_url: str | None = field(default=None, repr=False)
    nats_url: str | None = field(default=None, repr=False)
    mlflow_server: str | None = None
    dagster_server: str | None = None
    serving_server: str | None = None
    engine: str = PROCESS
    ray_address: str | None = None
    task_memory_gb: int = 3
    part_values: int | None = None
    redis_url: str | None = field(default=None, repr=False)
    notify_urls: tuple[str, ...] = field(default=(), repr=False)
    dagster_port: int = 3000
    mlflow_port: int = 5000
    nats_port: int = 4222
    serving_port: int = 8000
    serving_processes: int = 2
    serving_token: str | None = field(default=None, repr=False)
    sensor_seconds: int | None = None
    warm_runs: bool = True
    steps: str = PROCESS
    durability: str = "fsync"
    backup_folder: Path | None = None
    backup_recipients: tuple[str, ...] = ()
    storage: str | None = None
    branched_storage: str | None = None
    bundle_store: str = "folder"
    kept_bundles: int = 5
    kept_snapshot_days: int = 30
    kept_trace_days: int = 365
    file_grace_hours: int = 24
    kept_run_days: int = 180
    kept_report_days: int = 365
    openlineage_url: str | None = field(default=None, repr=False)
    openlineage_api_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read `MLOPS_*` from `environment`.

        By default the process's variables count, then those of the project's `.env`, then those of `deployments/<MLOPS_ENV>.env`
        (`local` unless named); in a branch environment those of its file alone. Raises ValueError naming the variable when a port is
        not a number from 1 to 65535, or the line of a file that cannot be read; StackError when there is neither `MLOPS_HOME` nor a project.
        """
        if environment is None:
            environment = environment_variables()
        home = environment.get("MLOPS_HOME") or current_project().state_directory
        return cls(
            home=Path(home).expanduser().resolve(),
            listening=Listening.from_environment(environment),
            sign_on=SignOn.from_environment(environment),
            postgres_url=environment.get("MLOPS_POSTGRES_URL") or None,
            nats_url=environment.get("MLOPS_NATS_URL") or None,
            mlflow_server=environment.get("MLOPS_MLFLOW_URL") or None,
            dagster_server=environment.get("MLOPS_DAGSTER_URL") or None,
            serving_server=environment.get("MLOPS_SERVING_URL") or None,
            engine=read_choice(environment, "MLOPS_ENGINE", cls.engine, ENGINES),
            ray_address=environment.get("MLOPS_RAY_ADDRESS") or None,
            task_memory_gb=read_count(environment, "MLOPS_TASK_MEMORY_GB", cls.task_memory_gb, most=1024),
            part_values=read_count(environment, "MLOPS_PART_VALUES", cls.part_values, most=10**9),
            redis_url=environment.get("MLOPS_REDIS_URL") or None,
            notify_urls=tuple(environment.get("MLOPS_NOTIFY_URLS", "").split()),
            dagster_port=read_port(environment, "MLOPS_DAGSTER_PORT", cls.dagster_port),
            mlflow_port=read_port(environment, "MLOPS_MLFLOW_PORT", cls.mlflow_port),
            nats_port=read_port(environment, "MLOPS_NATS_PORT", cls.nats_port),
            serving_port=read_port(environment, "MLOPS_SERVING_PORT", cls.serving_port),
            serving_processes=read_count(environment, "MLOPS_SERVING_PROCESSES", cls.serving_processes),
            serving_token=environment.get("MLOPS_SERVING_TOKEN") or None,
            sensor_seconds=read_count(environment, "MLOPS_SENSOR_SECONDS", cls.sensor_seconds),
            warm_runs=read_switch(environment, "MLOPS_WARM_RUNS", cls.warm_runs),
            steps=read_choice(environment, "MLOPS_STEPS", cls.steps, STEPS),
            backup_folder=Path(backups).expanduser().resolve() if (backups := environment.get("MLOPS_BACKUP_FOLDER")) else None,
            backup_recipients=tuple(environment.get("MLOPS_BACKUP_RECIPIENTS", "").split()),
            durability=read_choice(environment, "MLOPS_DURABILITY", cls.durability, DURABILITIES),
            storage=read_storage(environment),
            branched_storage=environment.get(BRANCHED_STORAGE_VARIABLE) or None,
            bundle_store=environment.get("MLOPS_BUNDLE_STORE")
            or ("object_storage" if environment.get("MLOPS_STORAGE") else cls.bundle_store),
            kept_bundles=read_count(environment, "MLOPS_KEPT_BUNDLES", cls.kept_bundles),
            kept_snapshot_days=read_count(environment, "MLOPS_KEPT_SNAPSHOT_DAYS", cls.kept_snapshot_days, most=3650),
            kept_trace_days=read_count(environment, "MLOPS_KEPT_TRACE_DAYS", cls.kept_trace_days, most=36500),
            file_grace_hours=read_count(environment, "MLOPS_FILE_GRACE_HOURS", cls.file_grace_hours, most=720),
            kept_run_days=read_count(environment, "MLOPS_KEPT_RUN_DAYS", cls.kept_run_days, most=3650),
            kept_report_days=read_count(environment, "MLOPS_KEPT_REPORT_DAYS", cls.kept_report_days, most=36500),
            openlineage_url=environment.get("MLOPS_OPENLINEAGE_URL") or None,
            openlineage_api_key=environment.get("MLOPS_OPENLINEAGE_API_KEY") or None,
        )

    @property
    def search_engine(self) -> str:
        """The engine of the trials of searches: an address is enough for Ray."""
        return RAY if self.ray_address else self.engine

    @property
    def task_memory(self) -> int:
        """The bytes that a task of an engine may use."""
        return self.task_memory_gb * 2**30

    @property
    def postgres_directory(self) -> Path:
        """Data folder of the embedded Postgres; its Unix socket is in it."""
        return self.home / "postgres"

    @property
    def postgres_password_file(self) -> Path:
        """File of the password in `postgres_url`, which libpq reads."""
        return self.home / "postgres_password"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder (`DAGSTER_HOME`)."""
        return self.home / "dagster"

    @property
    def run_worker_directory(self) -> Path:
        """Folder of the locks and logs of the processes that execute runs."""
        return self.home / "run_workers"

    @property
    def fork_server_socket(self) -> Path:
        """Unix socket of the server that forks the processes that execute runs."""
        return self.dagster_home / "fork.sock"

    @property
    def mlflow_artifact_directory(self) -> Path:
        """Folder of the artifacts that the MLflow server stores and serves, unless they are in object storage."""
        return self.home / "mlflow" / "artifacts"

    @property
    def mlflow_artifact_location(self) -> str:
        """The address at which the MLflow server stores artifacts."""
        return f"{self.storage}/mlflow" if self.storage else self.mlflow_artifact_directory.as_uri()

    @property
    def log_directory(self) -> Path:
        """Folder of the logs of the local stack's servers."""
        return self.home / "logs"

    @property
    def supervisor_configuration(self) -> Path:
        """The configuration file of the local stack's supervisor."""
        return self.home / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """Unix socket on which the local stack's supervisor answers."""
        return self.home / "supervisor.sock"

    @property
    def code_location_socket(self) -> Path:
        """Unix socket of the server of the Dagster code location."""
        return self.dagster_home / "code.sock"

    @property
    def lake_directory(self) -> Path:
        """Folder of the lake's Parquet files, unless they are in object storage."""
        return self.home / "lake"

    @property
    def lake_location(self) -> str:
        """Where the lake's Parquet files are: a folder, or an address in object storage."""
        return f"{self.storage}/lake" if self.storage else str(self.lake_directory)

    @property
    def deliveries_directory(self) -> Path:
        """Folder of files that a run may load into a raw table in place of those that its YAML file names."""
        return self.home / "deliveries"

    @property
    def serving_directory(self) -> Path:
        """Folder of the serving bundles: `<solution>/<version>/`."""
        return self.home / "serving"

    @property
    def references_directory(self) -> Path:
        """Folder of the monitoring references: `<solution>/<version>/`, copies of what the model registry holds."""
        return self.home / "references"

    @property
    def staged_windows_directory(self) -> Path:
        """Folder of the rows that the reports on a window share: `<solution>/`, a few files."""
        return self.home / "staged_windows"

    @property
    def spool_directory(self) -> Path:
        """Folder of the predictions that wait for the event stream: `<solution>/`."""
        return self.home / "spool"

    @property
    def access_token_file(self) -> Path:
        """File of the token that opens Dagster and MLflow."""
        return self.home / "access_token"

    @property
    def nats_platform_password_file(self) -> Path:
        """File of the password with which the platform's processes use the embedded event stream."""
        return self.home / "nats_platform_password"

    @property
    def nats_system_password_file(self) -> Path:
        """File of the password with which the embedded event stream is asked for its health."""
        return self.home / "nats_system_password"

    @property
    def nats_pid_file(self) -> Path:
        """File with the number of the process of the embedded event stream."""
        return self.home / "nats.pid"

    @property
    def nats_caller_password_file(self) -> Path:
        """File of the password with which applications ask by events and read predictions, on the embedded event stream."""
        return self.home / "nats_caller_password"

    @property
    def nats_callers_file(self) -> Path:
        """File of the accounts that the embedded event stream has for the callers; its configuration includes it."""
        return self.home / "nats_callers.conf"

    @property
    def serving_token_file(self) -> Path:
        """File of the token of the online server, unless `serving_token` gives it."""
        return self.home / "serving_token"

    @property
    def callers_file(self) -> Path:
        """File of the applications that may ask the online server, with the hashes of their tokens."""
        return self.home / "callers.json"

    @property
    def rate_limits_directory(self) -> Path:
        """Folder of the counts by which the processes of the online server limit their callers together."""
        return self.home / "rate_limits"

    @property
    def sessions_directory(self) -> Path:
        """Folder of the sessions of people who signed in by the OpenID provider."""
        return self.home / "sessions"

    @property
    def audit_log(self) -> Path:
        """File of who did what, one JSON object a line."""
        return self.home / "audit.jsonl"

    @property
    def approvals_file(self) -> Path:
        """File of what was asked, approved and refused of versions, one signed entry a line."""
        return self.home / "approvals.jsonl"

    @property
    def switches_directory(self) -> Path:
        """Folder of the changes of champions that Dagster has not recorded yet: `<solution>/`."""
        return self.home / "switches"

    @property
    def signing_key_file(self) -> Path:
        """File of the key that signs which bundles were registered and accepted; whoever loses it trains the versions again."""
        return self.home / "signing_key"

    @property
    def server_reports_directory(self) -> Path:
        """Folder where every server process says what it serves."""
        return self.home / "servers"

    @property
    def serving_metrics_directory(self) -> Path:
        """Folder of the numbers that the processes of the online server share."""
        return self.home / "metrics"

    @property
    def online_store_directory(self) -> Path:
        """Folder of the online feature store, unless it is on a Redis."""
        return self.home / "online_store"

    @property
    def reports_directory(self) -> Path:
        """Folder of the HTML reports: `<solution>/<window>.html`."""
        return self.home / "reports"

    @property
    def notification_log(self) -> Path:
        """File with every notification, one JSON object a line."""
        return self.home / "notifications.jsonl"

    @property
    def dagster_url(self) -> str:
        """Address of the Dagster webserver: `dagster_server`, or that of the local stack."""
        return self.dagster_server or self.listening.url(self.dagster_port)

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow tracking server: `mlflow_server`, or that of the local stack."""
        return self.mlflow_server or self.listening.url(self.mlflow_port)

    @property
    def serving_url(self) -> str:
        """Address of the online server: `serving_server`, or that of the local stack."""
        return self.serving_server or self.listening.url(self.serving_port)

    @property
    def nats_server_url(self) -> str:
        """Address of the NATS server: `nats_url`, or that of the embedded one."""
        scheme = "tls" if self.listening.has_tls else "nats"
        return self.nats_url or f"{scheme}://{self.listening.authority(self.nats_port)}"

    def postgres_connection_string(self, database: str) -> str:
        """The libpq keyword string of `database`, as psycopg2 and DuckDB take it. It names the file that holds the password."""
        if self.postgres_url is not None:
            return connection_string(self.postgres_url, database, self.postgres_password_file, self.listening.authorities)
        return keywords({"dbname": database, "user": "postgres", "host": str(self.postgres_directory)})

    def postgres_maintenance_connection_string(self) -> str:
        """The libpq keyword string of a database that exists before ours do: the one `postgres_url` names, or `postgres`."""
        named = urlsplit(self.postgres_url).path.removeprefix("/") if self.postgres_url else ""
        return self.postgres_connection_string(unquote(named) or "postgres")

    def sqlalchemy_url(self, database: str) -> str:
        """The SQLAlchemy URL of `database`, with the psycopg2 driver that dagster-postgres ships. It names the file that holds the password."""
        if self.postgres_url is None:
            return f"postgresql+psycopg2://postgres:@/{database}?host={quote(str(self.postgres_directory), safe='')}"
        return sqlalchemy_address(self.postgres_url, database, self.postgres_password_file, self.listening.authorities)


def sensor_interval(seconds: int) -> int:
    """The interval of a sensor that looks every so many `seconds`, unless the environment wants every sensor to look more often."""
    return min(seconds, Settings.from_environment().sensor_seconds or seconds)
