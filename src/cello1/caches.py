"""Where libraries may keep what they cache, on machines that give a user no home to write to."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def settle_caches() -> None:
    """Point caches to a private temporary folder where the home folder cannot be written.

    In locked-down containers numba finds no place for compiled code and ends every command;
    matplotlib and Hugging Face complain. All of them obey ``XDG_CACHE_HOME``, matplotlib
    ``XDG_CONFIG_HOME`` as well. What the user has set stays.
    """
    for name, usual in (("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config")):
        if name in os.environ or _can_hold(Path(os.path.expanduser("~")) / usual):  # noqa: PTH111
            continue
        if (folder := _own_folder()) is not None:
            os.environ[name] = str(folder / usual.strip("."))


def _can_hold(folder: Path) -> bool:
    """Return whether a folder can be written, or made."""
    if not folder.is_absolute():  # no home at all: `~` stays as it is
        return False
    with suppress(OSError):
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
        return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return False


def _own_folder() -> Path | None:
    """Make a folder that only this user can enter, the same for all their commands.

    A folder of that name that is another's, or a link, is passed over: what is compiled in a
    cache is run.
    """
    with suppress(OSError):
        folder = Path(tempfile.gettempdir()) / f"cello1-cache-{os.getuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid == os.getuid()
            and not found.st_mode & 0o077
        ):
            return folder
        return Path(tempfile.mkdtemp(prefix="cello1-cache-"))
    return None
