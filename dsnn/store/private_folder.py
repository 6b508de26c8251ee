"""Folders whose files are run or trusted: only their owner may write there, or another user chooses what runs."""

import hashlib
import os
import stat
from pathlib import Path

INSIDE = "private"
"""Name of the folder that is made in one that its owner's group may write to."""

OTHERS = stat.S_IWGRP | stat.S_IWOTH


def private(folder: Path) -> Path:
    """Returns the folder, made where it is missing, or one in it, that nobody but this user can write to.

    A folder that the group may write to, as a umask of 002 makes them, is left as it is, and one is made in it.

    Raises:
        OSError: the folder belongs to another user, all may write to it, or it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if only_mine(folder):
        return folder
    if not _mine(folder) or folder.stat().st_mode & stat.S_IWOTH:
        raise PermissionError(
            f"{folder} must be this user's and writable to no other, since its files are trusted; "
            f"got {stat.filemode(folder.stat().st_mode)} of user {folder.stat().st_uid}, name another folder."
        )
    inside = folder / INSIDE
    inside.mkdir(mode=0o700, exist_ok=True)
    if inside.is_symlink() or not only_mine(inside):
        raise PermissionError(f"{inside} must be writable to this user alone, since its files are trusted; remove it.")
    return inside


def only_mine(path: Path) -> bool:
    """Returns whether a folder or a file belongs to this user, and no other may write to it."""
    return _mine(path) and not (hasattr(os, "getuid") and path.stat().st_mode & OTHERS)


def digest(data: bytes) -> str:
    """Returns the first half of the SHA-256 of what a file holds: enough against damage."""
    return hashlib.sha256(data).hexdigest()[:32]


def settle(path: Path) -> None:
    """Returns once a file or a folder is on the disk, so that it outlives a loss of power.

    Raises:
        OSError: the disk is full or broken.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _mine(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
