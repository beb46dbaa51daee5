"""The password of a Postgres in a file for libpq, so that connection strings, which errors and configurations quote, hold none."""

import os
import tempfile
from pathlib import Path


def keep_password(path: Path, password: str) -> Path:
    """Keep `password` for every server and user in the file `path`, readable by the owner alone. Return the path."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    line = f"*:*:*:*:{escaped}\n"
    if path.exists() and path.read_text() == line:
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Complete when it gets its name: others connect meanwhile.
    file, scratch = tempfile.mkstemp(dir=path.parent, prefix=".password.")
    with os.fdopen(file, "w") as text:
        text.write(line)
    Path(scratch).replace(path)
    return path
