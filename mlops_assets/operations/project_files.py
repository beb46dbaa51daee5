"""The files of a new project, from the templates in `project_template`."""

import importlib.util
import keyword
import re
import stat
import sys
from importlib.metadata import version
from pathlib import Path

from mlops_assets.core.errors import StackError
from mlops_assets.core.text_templates import text_templates

_TEMPLATES = Path(__file__).parent / "project_template"

_FILES = {
    "pyproject.toml": "pyproject.toml.j2",
    "README.md": "README.md.j2",
    "requirements.lock": "requirements.lock",
    ".env.example": "env.example",
    ".gitignore": "gitignore",
    ".github/workflows/ci.yml": "github/ci.yml",
    ".github/workflows/deploy.yml": "github/deploy.yml",
    ".github/workflows/nightly.yml": "github/nightly.yml",
    ".gitlab-ci.yml": "gitlab-ci.yml",
    "deployments/deploy": "deploy",
    "deployments/local.env": "local.env",
    "deployments/staging.env": "staging.env",
    "deployments/prod.env": "prod.env",
    "dbt_project/dbt_project.yml": "dbt_project.yml.j2",
    "tests/test_definitions.py": "test_definitions.py.j2",
    "{module}/definitions.py": "definitions.py.j2",
}
_EMPTY_FILES = (
    "{module}/__init__.py",
    "{module}/defs/__init__.py",
    "dbt_project/models/staging/.gitkeep",
    "dbt_project/models/features/.gitkeep",
    "dbt_project/models/solutions/.gitkeep",
)

_PROGRAM = Path("deployments/deploy")

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_TAKEN = {"mlops", "dbt", "dbt_duckdb", "tests", "deployments", "dbt_project"}
"""dbt packages that a project has already, and folders of the project."""

OVERRIDES = (
    "xgboost; sys_platform == 'never'",
    "nvidia-nccl-cu12; sys_platform == 'never'",
    "lightgbm>=4.6",
    "kaleido; sys_platform == 'never'",
)
"""What uv installs otherwise than packages ask for: the same as for this package, whose `pyproject.toml` says why."""


def create_project(folder: Path) -> list[Path]:
    """Write the files of a new project into `folder`, whose name is that of the project. Returns them, relative to it.

    Raises StackError for a name that no Python module or dbt project can have, and for a folder that is not empty (but for `.git`).
    """
    folder = folder.expanduser().resolve()
    module = _module_name(folder.name)
    if folder.exists() and (not folder.is_dir() or any(entry.name != ".git" for entry in folder.iterdir())):
        raise StackError(f"{folder} exists and is not empty.", remedy="Choose another name, or an empty folder.")
    files = _render(folder.name, module)
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    program = folder / _PROGRAM
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return sorted(files)


def _module_name(name: str) -> str:
    """The Python module, code location and dbt project of the project `name`. Raises StackError with a name that is allowed."""
    if not _NAME.fullmatch(name):
        allowed = "_".join(re.findall(r"[a-z0-9]+", name.lower())).lstrip("0123456789_") or "my_company"
        problem = f"{name!r} cannot be the name of a project: lower-case letters and digits, parted by _ or -, a letter first."
        raise StackError(problem, remedy=f"Choose another one: mlops init {allowed}")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _TAKEN or _is_installed(module):
        problem = f"{name!r} cannot be the name of a project: Python or dbt has a module of that name."
        raise StackError(problem, remedy=f"Choose another one: mlops init {name}_models")
    return module


def _is_installed(module: str) -> bool:
    """Whether a package of this name is installed; a folder of the name in the working directory is none."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def _render(name: str, module: str) -> dict[Path, str]:
    environment = text_templates(_TEMPLATES)
    variables = {"name": name, "module": module, "version": version("mlops-assets"), "overrides": OVERRIDES}
    files = {Path(path.format(module=module)): "" for path in _EMPTY_FILES}
    for path, template in _FILES.items():
        source = (_TEMPLATES / template).read_text()
        text = environment.get_template(template).render(variables) if template.endswith(".j2") else source
        files[Path(path.format(module=module))] = text
    return files
