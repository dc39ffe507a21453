"""Choose cache folders for libraries on machines without a writable home folder."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def settle_caches() -> None:
    """Point caches to a private temporary folder if the home folder is not writable.

    In locked-down containers numba cannot store compiled code, and every command fails; matplotlib
    and Hugging Face print warnings. All of them respect ``XDG_CACHE_HOME``, matplotlib also
    ``XDG_CONFIG_HOME``. Variables that the user has set are not changed.
    """
    for name, usual in (("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config")):
        if name in os.environ or _can_hold(Path(os.path.expanduser("~")) / usual):  # noqa: PTH111
            continue
        if (folder := _own_folder()) is not None:
            os.environ[name] = str(folder / usual.strip("."))


def _can_hold(folder: Path) -> bool:
    """Return whether a folder is writable, or can be made."""
    if not folder.is_absolute():  # without a home `~` is not expanded
        return False
    with suppress(OSError):
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
        return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return False


def _own_folder() -> Path | None:
    """Make a folder that only this user can enter, the same for all commands of the user.

    A link, or a folder of that name owned by another user, is not used, because compiled code in a
    cache is executed.
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
