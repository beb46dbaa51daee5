"""The token that callers of the online server give: from `MLOPS_SERVING_TOKEN`, or a random one in the state folder."""

import hmac
import os
import secrets
import tempfile
from pathlib import Path

from mlops_assets.settings import Settings

_SCHEME = b"bearer"


def ensure_token(settings: Settings) -> str:
    """The token of this installation; a random one is made, readable by the owner alone, when there is none."""
    if settings.serving_token:
        return settings.serving_token
    path = settings.serving_token_file
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


def is_authorized(header: bytes | None, token: str) -> bool:
    """Whether the header `Authorization` holds the token; takes the same time wherever a wrong one differs."""
    scheme, _, given = (header or b"").partition(b" ")
    return scheme.lower() == _SCHEME and hmac.compare_digest(given.strip(), token.encode())


def _write_once(path: Path, token: str) -> None:
    """Write the file unless another process was faster; it appears complete."""
    file, scratch = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(file, "w") as text:
        text.write(token + "\n")
    try:
        path.hardlink_to(scratch)
    except FileExistsError:
        return
    finally:
        Path(scratch).unlink()
