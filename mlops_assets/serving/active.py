"""Which version of a solution predicts on this machine: the link `champion` in its folder of serving bundles.

The folder is `<serving directory>/<solution>`, with a bundle a version (`7/`) beside the link. A promotion moves the link in one
step, and a process that serves follows it.
"""

import os
from pathlib import Path

ACTIVE_LINK = "champion"


def activate(bundle: Path) -> None:
    """Let the link beside `bundle` point to it. A reader sees the former target or this one, never neither."""
    scratch = bundle.parent / f".{ACTIVE_LINK}.{os.getpid()}"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(bundle.name)
    scratch.replace(bundle.parent / ACTIVE_LINK)


def active_bundle(folder: Path) -> Path | None:
    """The bundle that the solution's `folder` has active, or None before the first promotion."""
    link = folder / ACTIVE_LINK
    return link.resolve() if link.is_symlink() else None
