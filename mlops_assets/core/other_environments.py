"""Settings of another environment of the project, to read from it. Nothing of this process's own environment counts."""

from mlops_assets.core.environment_files import OWNER_FILE, environment_name, variables_of_environment
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings


def other_settings(name: str) -> Settings:
    """The settings of the environment `name`, by `deployments/<name>.env` alone.

    Raises StackError when that is this environment, has no file, or its state folder cannot be read or is of another one.
    """
    if name == environment_name():
        raise StackError(f"{name} is the environment of this process.", remedy="Name the one to copy from.")
    try:
        settings = Settings.from_environment(variables_of_environment(name))
    except ValueError as error:
        raise StackError(str(error), remedy="mlops --env NAME up starts an environment whose file is in deployments/.") from error
    owner = settings.home / OWNER_FILE
    try:
        found = owner.read_text().strip()
    except OSError as error:
        raise StackError(
            f"The state folder of {name} cannot be read: {owner}: {error.strerror}.",
            remedy=f"MLOPS_HOME in deployments/{name}.env has to name it, readable from this machine: its key verifies what is copied.",
        ) from error
    if found != name:
        raise StackError(
            f"The state in {settings.home} is of the environment {found}, not of {name}.",
            remedy=f"Correct MLOPS_HOME in deployments/{name}.env.",
        )
    return settings
