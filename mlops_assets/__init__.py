"""An end-to-end MLOps platform as a Dagster asset graph."""

import os
from typing import Any

QUIET_LIBRARIES = {
    # Nothing phones home.
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NML_DISABLE_USAGE_LOGGING": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Progress bars, addresses and git warnings of MLflow are noise in a run's log and on a terminal.
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables that these libraries read when they are imported, which is after this: set in every process of the platform and its children."""

os.environ.update(QUIET_LIBRARIES)

_COMPONENTS = ("DbtModels", "MLSolution", "RawTables")


def __getattr__(name: str) -> Any:
    """The components by their short names, `mlops_assets.MLSolution`; imported when asked for, since servers have no Dagster."""
    if name in _COMPONENTS:
        from mlops_assets import components

        return getattr(components, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """With the components, which `dg list components` looks for."""
    return sorted({*globals(), *_COMPONENTS})
