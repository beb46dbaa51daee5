"""What `mlops status` says of the solutions: champion, last partition, failing checks."""

from mlops_assets.settings import Settings


def solution_states(settings: Settings) -> dict[str, dict[str, object]]:
    """One entry a solution, by name, with values that JSON can hold."""
    return {}
