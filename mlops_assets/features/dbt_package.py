"""The dbt package `mlops` and the dbt profile of the platform, which lie in `mlops_assets/dbt_package`, and their place in a dbt project.

`dbt deps` would install the package from a path too. It needs that path in a file that is shared, and empties the folder of packages first.
"""

import os
from pathlib import Path

import yaml

from mlops_assets.core.errors import StackError

DBT_PACKAGE = Path(__file__).parents[1] / "dbt_package"
"""The macros and data tests of the platform, and the profile that names the lake."""

_NAME = "mlops"
_PACKAGES_FOLDER = "dbt_packages"


def dbt_profile_variables() -> dict[str, str]:
    """The environment variables by which dbt takes the profile of the platform, whichever one the project names."""
    return {"DBT_PROFILES_DIR": str(DBT_PACKAGE), "DBT_PROFILE": _NAME}


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
    # Two processes may prepare the project at once.
    temporary = link.with_name(f"__{_NAME}.{os.getpid()}")
    temporary.symlink_to(DBT_PACKAGE)
    temporary.replace(link)
    return True


def _require_dispatch(path: Path) -> None:
    """Raise StackError unless the macros of the package go before dbt's own, whose incremental models double rows of a repeated run."""
    content = yaml.safe_load(path.read_text()) or {}
    name = content.get("name", "<project>")
    orders = [entry["search_order"] for entry in content.get("dispatch") or [] if entry.get("macro_namespace") == "dbt"]
    if not any(_NAME in order[: order.index("dbt")] if "dbt" in order else _NAME in order for order in orders):
        raise StackError(
            f"{path}: the macros of the package {_NAME} do not go before those of dbt.",
            remedy=f"Add to it:\ndispatch:\n  - macro_namespace: dbt\n    search_order: [{name}, {_NAME}, dbt]",
        )
