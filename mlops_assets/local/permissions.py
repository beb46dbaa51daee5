"""Permissions of the state folder: closed to other users, except where one of them must pass through."""

import contextlib
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

PRIVATE_UMASK = 0o077
"""With it a process makes no file that another user can read."""

_ACCESS_LIST = "system.posix_acl_access"
_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
_SEARCH = 0o1
_NOBODY = 0xFFFFFFFF


@contextlib.contextmanager
def readable_by_all() -> Iterator[None]:
    """Let others read what is written inside the block: files of an installation or a project, which users may share, not of the state."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def close_folder(folder: Path) -> bool:
    """Take every right on `folder` and on what is directly in it from other users. Returns whether the folder was open to them.

    Raises OSError when the folder is another user's, or its file system keeps no rights.
    """
    was_open = _is_open(folder)
    if was_open:
        folder.chmod(0o700 | _shown_of_access_list(folder))
        if _is_open(folder):
            raise OSError(0, "its file system does not keep the rights of files")
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        if not entry.is_symlink() and status.st_uid == os.geteuid() and status.st_mode & 0o077:
            Path(entry.path).chmod(status.st_mode & 0o700)
    return was_open


def let_pass(folder: Path, user: int) -> None:
    """Let the user with this number pass through `folder`, not list it: by an access list, so that nobody else gains a right.

    Raises OSError when the file system has no access lists.
    """
    mode = folder.stat().st_mode
    if mode & _SEARCH:
        return
    entries = _access_list(folder, mode)
    given = entries.get((_USER, user), 0) | _SEARCH
    entries[_USER, user] = given
    # The mask limits what users and groups of the list may do.
    entries[_MASK, _NOBODY] = entries.get((_MASK, _NOBODY), entries[_GROUP, _NOBODY]) | _SEARCH
    packed = b"".join(_ENTRY.pack(tag, rights, who) for (tag, who), rights in sorted(entries.items()))
    os.setxattr(folder, _ACCESS_LIST, _VERSION.pack(2) + packed)


def _access_list(folder: Path, mode: int) -> dict[tuple[int, int], int]:
    """The entries of a folder's access list by kind and user; of a folder without one those that its mode stands for."""
    if _ACCESS_LIST not in os.listxattr(folder):
        rights = {_OWNER: mode >> 6, _GROUP: mode >> 3, _OTHERS: mode}
        return {(tag, _NOBODY): given & 0o7 for tag, given in rights.items()}
    packed = os.getxattr(folder, _ACCESS_LIST)[_VERSION.size :]
    return {(tag, who): rights for tag, rights, who in _ENTRY.iter_unpack(packed)}


def _is_open(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o077 & ~_shown_of_access_list(folder))


def _shown_of_access_list(folder: Path) -> int:
    """The rights that an access list shows in the mode, as if they were the group's: to pass through."""
    has_list = sys.platform == "linux" and _ACCESS_LIST in os.listxattr(folder)
    return 0o010 if has_list else 0
