"""How long the code location takes to load, beside the import of dagster_dbt alone, each in a fresh process."""

import compileall
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import compare

import mlops_assets

RUNS = 5
LIMIT = 1.3
LOADING = "import mlops_assets.definitions; mlops_assets.definitions.defs()"
REFERENCE = "import dagster_dbt"


def seconds(code: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    return time.perf_counter() - started


def test_loading_the_code_location() -> None:
    assert compileall.compile_dir(Path(mlops_assets.__file__).parent, quiet=2)
    # Alternating, so that other load on the machine falls on both; the first pair fills the file caches.
    pairs = [(seconds(LOADING), seconds(REFERENCE)) for _ in range(RUNS + 1)][1:]
    loading, reference = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert compare(
        "loading the code location", ours=loading, beside="import dagster_dbt", theirs=reference, unit="s", at_most=LIMIT
    )
