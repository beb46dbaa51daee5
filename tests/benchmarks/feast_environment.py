"""Feast in an environment of its own, kept between runs since building it takes minutes. No tests here."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FEAST = "feast[duckdb]==0.67.*"
_ENVIRONMENT = Path(tempfile.gettempdir()) / "mlops-benchmarks" / "feast-duckdb-0.67"


def run_feast(script: Path, folder: Path, asked: dict[str, Any]) -> Any:
    """What `script` prints, as JSON, when it runs on `folder` with `asked`; None, and says why, when Feast cannot be installed."""
    python = _ENVIRONMENT / "bin" / "python"
    if not (_ENVIRONMENT / "installed").exists():
        show(f"installing {FEAST} into {_ENVIRONMENT}")
        shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(_ENVIRONMENT)], check=True)
        uv = shutil.which("uv")
        installer = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
        done = subprocess.run([*installer, "-q", FEAST], capture_output=True, text=True, check=False)
        if done.returncode:
            show(f"no comparison: {FEAST} cannot be installed here:\n{done.stderr[-1000:]}")
            return None
        (_ENVIRONMENT / "installed").touch()
    folder.mkdir(exist_ok=True)
    (folder / "asked.json").write_text(json.dumps(asked))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"FEAST_USAGE": "False"}
    done = subprocess.run(
        [str(python), "-W", "ignore", str(script), str(folder)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def show(line: str) -> None:
    """Print a line of the benchmark's report."""
    print(line, flush=True)  # noqa: T201
