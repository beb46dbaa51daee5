"""Aliases of the model registry: the champion, the challenger and the previous champion of a solution or a segment."""

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases: the version that predicts, the newest that passed its gates and waits, and the one that predicted before."""


def segment_alias(role: str, segment: str | None) -> str:
    """The alias of `CHAMPION`, `CHALLENGER` or `PREVIOUS`, such as `champion`; of a segment such as `champion-north`."""
    return role if segment is None else f"{role}-{segment}"
