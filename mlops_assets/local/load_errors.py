"""Errors of a code location that cannot be loaded, as Dagster answers them: the cause and its place, without the layers around it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PLACE = re.compile(r'File "(.+?)", line (\d+)')


def describe_load_error(error: Mapping[str, Any], root: Path) -> str:
    """Return the innermost cause of a `PythonError` of GraphQL, after the place in the project `root` that led to it."""
    chain = [error, *error["causes"]]
    message = chain[-1]["message"].strip()
    places = [place for link in chain for frame in link["stack"] for place in _PLACE.findall(frame)]
    own = [(file, line) for file, line in places if Path(file).is_relative_to(root) and "site-packages" not in file]
    # A syntax error names its place by itself.
    if not own or _PLACE.search(message):
        return message
    file, line = own[-1]
    return f"{Path(file).relative_to(root)}:{line}: {message}"
