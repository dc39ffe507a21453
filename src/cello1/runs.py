"""Run folders: append-only, crash-safe and resumable records of what a command did.

A run folder holds ``run.json`` (command, resolved config, versions, git revision, seed, hashes
of the inputs) and ``responses.jsonl``, to which every finished item adds one complete line.
A run killed at any moment leaves at most one incomplete line, at the end; the line is discarded and
the item is redone.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from filelock import FileLock, Timeout

from cello1.addresses import cleaned
from cello1.errors import InputError, brief

# Called with (what is being done, share done).
Watch = Callable[[str, float], None]
# Called with (items done, items in all).
Count = Callable[[int, int], None]
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CAREFULLY = ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_BINARY")
LOG = "log.jsonl"  # of a training, one JSON object a line
_WHOLE_HASH_BYTES = 64 << 20
_SAMPLED_BLOCKS, _BLOCK_BYTES = 256, 64 << 10
_FSYNC_SECONDS = 1.0
_SEVERAL = re.compile(r"[*{]")
_REPORTED_PACKAGES = ("numpy", "scipy", "pandas", "anndata", "scikit-learn", "numba", "pyarrow")


def create(path: Path, flags: int = os.O_RDWR, mode: int = 0o666) -> int:
    """Open a file of a run folder, create it if missing, and return its descriptor.

    Anything but a plain file, such as a symbolic link to another file or a FIFO, is refused, since
    run folders may come from other people. The umask sets the permissions of a new file.

    Raises
    ------
    InputError
        When something other than a plain file lies there.
    """
    # Not every system has all of these flags; the last is only on Windows.
    kept = os.O_CREAT | sum(getattr(os, name, 0) for name in _CAREFULLY)
    try:
        handle = os.open(path, flags | kept, mode)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise
        raise InputError(_not_plain(path)) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(_not_plain(path))
    return handle


def open_plain(path: Path) -> BinaryIO:
    """Open a file of a folder for reading; a pipe, which might block forever, is refused.

    Raises
    ------
    InputError
        When something other than a plain file lies there.
    """
    flags = sum(getattr(os, name, 0) for name in _CAREFULLY if name != "O_NOFOLLOW")
    handle = os.open(path, os.O_RDONLY | flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"{path} is no plain file; expected a file of ours: remove it")
    return os.fdopen(handle, "rb")


def _not_plain(path: Path) -> str:
    what = "a symbolic link" if path.is_symlink() else "no plain file"
    return f"{path} is {what}, so nothing is written there; expected a file of ours: remove it"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that is renamed to `path` on success.

    Temporary files of killed processes are removed first. On failure the temporary file is removed;
    an `OSError` names `path`, and the free space if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    mark = f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.parent / f".{path.name}.{mark}.part"
    try:
        os.close(create(temporary, os.O_RDWR | os.O_EXCL))
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        left = f" ({_free(path.parent)} free)" if full else ""
        temporary.unlink(missing_ok=True)
        if error.errno is None:
            raise
        raise OSError(error.errno, f"{error.strerror}{left}", str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `out`, for one process at a time.

    Files of a killed process are removed. The folder itself is locked by the system, so that the
    lock ends with its process and leaves no file; on Windows there is no lock.

    Raises
    ------
    InputError
        When another process is writing `out`.
    OSError
        On a full disk, with the space that is left.
    """
    part = out.with_name(f".{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    handle = _locked(part)
    if handle is None:
        raise InputError(f"{out} is in use by another process; wait for it")
    try:
        for left in part.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield part
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise  # named where it was written
        raise OSError(error.errno, f"{error.strerror} ({_free(part)} free)", str(out)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


def _locked(folder: Path) -> int | None:
    """Lock a folder; None when another process holds the lock, or has just removed the folder."""
    try:
        import fcntl
    except ImportError:
        return -1
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(_not_plain(folder)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.lstat().st_ino == os.fstat(handle).st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # a file system without locks
        return handle
    os.close(handle)
    return None


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """Yield a new folder that is renamed to `out` on success.

    Raises
    ------
    InputError
        When `out` exists and is not empty, or another process is writing it.
    """
    with beside(out) as part:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise InputError(f"{out} exists and is not empty; choose another --out")
        yield part
        for path in part.iterdir():
            if path.is_file():
                path.chmod(part.stat().st_mode & 0o666)  # some libraries write for the owner only
        if out.exists():
            out.rmdir()
        part.rename(out)


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB"


def sweep(folder: Path, name: str = "*") -> None:
    """Remove temporary files that dead processes of this machine left in a folder.

    Parameters
    ----------
    folder
        The folder; subfolders are not searched.
    name
        Name of the file that was to be written; by default any.
    """
    name = name if name == "*" else glob.escape(name)
    for left in folder.glob(f".{name}.*.part"):
        owner = re.search(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.part$", left.name)
        if owner is None or owner[1] != _host() or _is_alive(int(owner[2])):
            continue
        with suppress(OSError):
            left.unlink()


def _host() -> str:
    """Return a hash of this machine's name: process ids are valid on one machine only."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically (temporary file, fsync, rename)."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True)
    write_atomic(path, text.encode() + b"\n")


def append_line(log: Path, line: Mapping[str, Any]) -> None:
    """Append a line of JSON to a log, which is created if missing; links are refused."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = create(log, os.O_WRONLY | os.O_APPEND)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def named_files(path: Path) -> list[Path]:
    """Return the files that a path or pattern names.

    The last part may be a pattern (``train-*.parquet``) or a list (``{a.parquet,b/*.parquet}``).
    """
    text = str(path)
    start = text.find("/{") + 1
    if path.exists() or not _SEVERAL.search(text):
        return [path]
    if start and text.endswith("}"):
        parts = [Path(text[:start]) / part for part in text[start + 1 : -1].split(",")]
    else:
        parts = [path]
    found: dict[Path, None] = {}
    for part in parts:
        # Names of existing folders are taken literally, even with pattern characters.
        folder = next((f for f in part.parents if f.is_dir()), Path())
        found |= dict.fromkeys(sorted(folder.glob(str(part.relative_to(folder)))))
    return [name for name in found if name.is_file()]


def file_hash(path: Path) -> str:
    """Hash a file's content: all of it up to 64 MiB, else its size and 256 evenly spaced blocks.

    Hashing a file of hundreds of gigabytes would take longer than building puzzles from it. The
    prefix names the kind of hash: ``sha256:`` or ``sampled-sha256:``. For a folder (a zarr store)
    the names and sizes of all files are hashed, and the content of up to 256 of them. For several
    files (see :func:`named_files`) their hashes are hashed.
    """
    if _SEVERAL.search(str(path)) and not path.exists():
        each = "".join(map(file_hash, named_files(path)))
        return "files-sha256:" + hashlib.sha256(each.encode()).hexdigest()
    if path.is_dir():
        return _folder_hash(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_HASH_BYTES:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(str(size).encode())
        for i in range(_SAMPLED_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * i // (_SAMPLED_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return "sampled-sha256:" + digest.hexdigest()


def _folder_hash(folder: Path) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [f"{path.relative_to(folder)} {path.stat().st_size}" for path in paths]
    step = max(1, len(paths) // _SAMPLED_BLOCKS)
    looked_at = [file_hash(path) for path in paths[::step]]
    digest = hashlib.sha256("\n".join([*names, *looked_at]).encode("utf-8", "surrogateescape"))
    return ("sha256:" if step == 1 else "sampled-sha256:") + digest.hexdigest()


def environment() -> dict[str, Any]:
    """Return what a result depends on besides its inputs: versions and the git revision."""
    here = Path(__file__).resolve().parent
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    revision = ""
    with suppress(OSError):  # no git on this machine
        reading = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # reading must not write there
        said = subprocess.run(
            describe, cwd=here, env=reading, capture_output=True, text=True, check=False
        )
        revision = said.stdout.strip()
    return {
        "cello1": _version("cello1"),
        "python": platform.python_version(),
        "git": revision or None,
        **{name: _version(name) for name in _REPORTED_PACKAGES},
    }


@cache
def _version(name: str) -> str | None:
    """Return the version of a package, or None: a machine that only trains lacks some."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def named_rng(*what: object) -> np.random.Generator:
    """Return the generator of one random choice, seeded by a hash of its name.

    So a choice depends on the seed and its name, never on earlier choices.
    """
    name = "\x1f".join(map(str, what))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16]))


def run_names(runs: Sequence[Path]) -> list[str]:
    """Return what to call runs: the names of their folders, or their paths where names repeat.

    Raises
    ------
    InputError
        When a run is named twice.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("a run is named twice; name every run folder once")
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    return [_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", name) for name in names]


class Run:
    """An open run folder; use it in a ``with`` statement.

    Parameters
    ----------
    folder
        The run folder; created if missing.
    command
        The verb that makes it.
    config
        The resolved settings: JSON values only.
    inputs
        The files it reads; a folder whose inputs have other hashes is refused.
    finished_by
        Name of the file that is written last. While it is missing, a run with other settings may
        reuse the folder. By default it may never.

    Raises
    ------
    InputError
        When the folder holds another run (other command, config or inputs), or another process
        is writing to it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: str,
        config: Mapping[str, Any],
        inputs: Sequence[Path],
        finished_by: str | None = None,
    ) -> None:
        self.folder = folder
        self.inputs = {str(path): file_hash(path) for path in inputs}
        config = cleaned(config)
        identity = {"command": command, "config": config, "inputs": self.inputs}
        folder.mkdir(parents=True, exist_ok=True)
        os.close(create(folder / ".lock"))
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"{folder} is in use by another process; wait for it") from error
        try:
            self._claim(identity, finished_by is None or (folder / finished_by).exists())
            self._cut_torn_line(folder / "responses.jsonl")
            sweep(folder)
        except BaseException:
            self._lock.release()
            raise
        self._file: FileIO | None = None
        self._synced = time.monotonic()

    def _claim(self, identity: dict[str, Any], settled: bool) -> None:
        """Claim the folder for this run; until it is settled, its settings may change."""
        path = self.folder / "run.json"
        earlier = read_run(self.folder) if path.exists() else None
        if earlier is None or (not settled and earlier.get("command") == identity["command"]):
            write_json(path, {**identity, "environment": environment()})
            return
        # Inputs may have moved: their content is compared, not their path.
        for key in ("command", "config"):
            before = cleaned(earlier.get(key))
            if before != json.loads(json.dumps(identity[key])):
                raise InputError(
                    f"{self.folder} holds a run with another {key}: "
                    f"{_difference(before, identity[key])}; choose another --out"
                )
        if sorted(map(str, earlier["inputs"].values())) != sorted(identity["inputs"].values()):
            raise InputError(
                f"{self.folder} was made from other inputs ({', '.join(earlier['inputs'])} with "
                "other content); results would mix: choose another --out"
            )

    @staticmethod
    def _cut_torn_line(path: Path) -> None:
        if not os.path.lexists(path):
            return
        with os.fdopen(create(path), "rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)

    def finished(self) -> set[str]:
        """Return the ids that need no further work; failures are redone."""
        return {record["id"] for record in read_records(self.folder) if "failure" not in record}

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one finished item; it reaches the disk within about a second."""
        if self._file is None:
            handle = create(self.folder / "responses.jsonl", os.O_WRONLY | os.O_APPEND)
            self._file = FileIO(handle, "ab")
        end = self._file.seek(0, os.SEEK_END)
        line = memoryview(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(end)  # an incomplete line would corrupt the next one
            why = f"{error.strerror} ({_free(self.folder)} free)"
            raise OSError(error.errno, why, str(self.folder / "responses.jsonl")) from error
        if time.monotonic() - self._synced > _FSYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._file is not None:
                with self._file:
                    os.fsync(self._file.fileno())
        finally:
            self._lock.release()


def read_run(folder: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises
    ------
    InputError
        When the folder is no run.
    """
    try:
        with open_plain(folder / "run.json") as file:
            found = json.loads(file.read().decode())
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder} is no run folder: run.json cannot be read ({error})") from error
    expected = {"command": str, "config": dict, "inputs": dict}
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), kind) for key, kind in expected.items()
    ):
        raise InputError(
            f"{folder / 'run.json'} is not as a run writes it (an object with command, config and "
            "inputs): it was altered; run again with another --out"
        )
    return found


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete records of a run; an incomplete last line is skipped.

    Raises
    ------
    InputError
        When a line in the middle is damaged, which a crash cannot cause.
    """
    path = folder / "responses.jsonl"
    if not path.exists():
        return
    for number, record in json_lines(path):
        if not isinstance(record, dict) or not isinstance(record.get("id"), str):
            raise InputError(
                f"{path}, line {number} is damaged: {brief(record)} is no record with an id"
            )
        yield record


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the lines of a file with their numbers; an incomplete last line is skipped.

    Raises
    ------
    InputError
        When a line in the middle is damaged.
    """
    with open_plain(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number} is damaged: {error}") from error
            yield number, value


def _difference(earlier: Any, now: Any) -> str:
    if not (isinstance(earlier, dict) and isinstance(now, dict)):
        return f"{earlier!r} there, {now!r} now"
    keys = [k for k in sorted({*earlier, *now}) if earlier.get(k) != now.get(k)]
    return ", ".join(f"{k} was {earlier.get(k)!r} and is now {now.get(k)!r}" for k in keys)
