import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlops_assets
import mlops_assets.ml
import mlops_assets.serving

HEAVY = (
    "pandas",
    "sklearn",
    "mlflow",
    "nannyml",
    "skl2onnx",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "pandera",
    "jinja2",
    "dagster",
)


def test_importing_the_modules_imports_no_library_that_only_a_function_needs() -> None:
    names = [
        f"{package.__name__}.{module.name}"
        for package in (mlops_assets.ml, mlops_assets.serving)
        for module in pkgutil.iter_modules(package.__path__)
    ]
    assert len(names) >= 14
    code = f"import sys, {', '.join(names)}; print([name for name in {HEAVY} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_rollback_does_not_wait_for_imports_that_it_does_without() -> None:
    modules = "mlops_assets.cli.main, mlops_assets.local.control, mlops_assets.operations.deployments, mlops_assets.serving.bundle_stores"
    code = f"""import sys, {modules}
print([name for name in {(*HEAVY, "duckdb", "nats", "aiohttp", "pydantic")} if name in sys.modules])"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.long
def test_no_library_keeps_anything_about_its_use(tmp_path: Path) -> None:
    variables = {
        name: value for name, value in os.environ.items() if name not in {*mlops_assets.QUIET_LIBRARIES, "XDG_CACHE_HOME"}
    }
    code = "import mlops_assets, dagster, litserve, mlflow.tracking, nannyml, onnxruntime, optuna"
    subprocess.run([sys.executable, "-c", code], env=variables | {"HOME": str(tmp_path), "MPLCONFIGDIR": "/tmp"}, check=True)
    assert list(tmp_path.rglob("*")) == []
