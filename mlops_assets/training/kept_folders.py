"""Folders of a version's files that this machine keeps: where they were written or fetched, so that nothing is downloaded twice.

Whoever reads one compares it with its signed record.
"""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def keep_folder(target: Path, write: Callable[[Path], Path]) -> None:
    """Put the folder that `write` makes below a scratch folder at `target`, in place of what is there: complete or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
        written = write(Path(scratch))
        with contextlib.suppress(FileNotFoundError):
            target.rename(Path(scratch) / "before")
        try:
            written.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another process was faster; its folder is as good.


def copy_of(folder: Path) -> Callable[[Path], Path]:
    """Return a function that copies `folder`, for `keep_folder`."""
    return lambda scratch: Path(shutil.copytree(folder, scratch / "copy"))
