"""The dbt package `mlops` and the dbt profile of the platform, which lie in `mlops_assets/dbt_package`, and their place in a dbt project.

`dbt deps` would install the package from a path too. It needs that path in a file that is shared, and empties the folder of packages first.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.core.errors import StackError
from mlops_assets.schema.yaml_loader import read_yaml

DBT_PACKAGE = Path(__file__).parents[1] / "dbt_package"
"""The macros and data tests of the platform, and the profile that names the lake."""

_NAME = "mlops"
_PACKAGES_FOLDER = "dbt_packages"


def dbt_profile_variables() -> dict[str, str]:
    """The environment variables by which dbt takes the profile of the platform, whichever one the project names."""
    return {"DBT_PROFILES_DIR": str(DBT_PACKAGE), "DBT_PROFILE": _NAME}


def read_dbt_project(path: Path) -> dict[str, Any]:
    """The content of a `dbt_project.yml`. Raises StackError with the place when it is no YAML or no mapping."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StackError(f"{path} is no YAML: {error}", remedy="Mend the file.") from error
    if not isinstance(content, dict):
        raise StackError(f"{path} is no mapping of names to values.", remedy="Restore it; `mlops init` shows one.")
    return content


def link_dbt_package(project: Path) -> bool:
    """Put the dbt package where the dbt project in `project` looks for packages. Returns whether it was not there.

    Raises StackError when the project does not use the macros of the package, or has something else of its name.
    """
    _require_dispatch(project / "dbt_project.yml")
    link = project / _PACKAGES_FOLDER / _NAME
    if link.is_symlink() and link.readlink() == DBT_PACKAGE:
        return False
    if link.exists() and not link.is_symlink():
        raise StackError(f"{link} is not the package of the platform.", remedy="Remove it, then try again: mlops prepare")
    link.parent.mkdir(exist_ok=True)
    # Two processes may prepare the project at once. Beside the folder of packages, where one that is killed leaves no second package.
    temporary = project / f".{_NAME}_package.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(DBT_PACKAGE)
    temporary.replace(link)
    return True


def _require_dispatch(path: Path) -> None:
    """Raise StackError unless the macros of the package go before dbt's own, whose incremental models double rows of a repeated run."""
    content = read_dbt_project(path)
    name = content.get("name", "<project>")
    orders = [entry["search_order"] for entry in content.get("dispatch") or [] if entry.get("macro_namespace") == "dbt"]
    if not any(_NAME in order[: order.index("dbt")] if "dbt" in order else _NAME in order for order in orders):
        raise StackError(
            f"{path}: the macros of the package {_NAME} do not go before those of dbt.",
            remedy=f"Add to it:\ndispatch:\n  - macro_namespace: dbt\n    search_order: [{name}, {_NAME}, dbt]",
        )
