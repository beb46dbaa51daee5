"""dbt commands as processes, as the platform starts them. No tests here."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from mlops_assets.runs.dbt_processes import start_dbt


def run_dbt(*arguments: str, directory: Path, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a dbt command in `directory`, and return what it printed, all of it as its output, and its exit code."""
    process = start_dbt(arguments, directory=directory, environment=environment)
    with process.stdout:
        output = process.stdout.read().decode()
    return subprocess.CompletedProcess(process.args, process.wait(), output, "")
