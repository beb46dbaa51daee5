"""An end-to-end MLOps platform as a Dagster asset graph."""

import os

QUIET_LIBRARIES = {
    # Nothing phones home.
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NML_DISABLE_USAGE_LOGGING": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    # Progress bars, addresses and git warnings of MLflow are noise in a run's log and on a terminal.
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables that these libraries read when they are imported, which is after this: set in every process of the platform and its children."""

os.environ.update(QUIET_LIBRARIES)
