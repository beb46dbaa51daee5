import pkgutil
import subprocess
import sys

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
