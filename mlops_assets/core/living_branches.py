"""The branches of this environment that are there."""

from datetime import datetime

from mlops_assets.core.branches import BRANCH_FILE, BRANCH_MADE_VARIABLE, BRANCH_OF_VARIABLE
from mlops_assets.core.environment_files import environment_name, read_environment_file
from mlops_assets.core.project import Project


def oldest_branch(project: Project) -> datetime | None:
    """The moment since which branches of this environment read files of its lake, None without a branch. Those of other folders are not seen."""
    files = sorted(project.branches_directory.glob(f"*/{BRANCH_FILE}"))
    branches = [
        variables for variables in map(read_environment_file, files) if variables[BRANCH_OF_VARIABLE] == environment_name()
    ]
    return min((datetime.fromisoformat(variables[BRANCH_MADE_VARIABLE]) for variables in branches), default=None)
