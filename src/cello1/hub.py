"""Files of the Hugging Face hub, from its cache if the hub is unreachable.

The hub's client retries for a minute before it fails; here a connection is tried first, and the
cache is used if there is none.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

from cello1.errors import InputError, first_line

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SECONDS = 5.0


def is_hub_name(text: str) -> bool:
    """Return whether a text can be the name of a repository: OWNER/NAME."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def snapshot(
    name: str,
    kind: Literal["model", "dataset"],
    *,
    revision: str | None = None,
    patterns: Sequence[str] | None = None,
) -> Path:
    """Return the folder of a repository's files, downloaded or from the cache.

    Parameters
    ----------
    name
        OWNER/NAME.
    kind
        Kind of repository.
    revision
        Branch, tag or commit; by default the main branch.
    patterns
        Patterns of file names; by default all files.

    Raises
    ------
    InputError
        When there is no such repository, or the hub cannot be reached and the cache lacks it.
    """
    try:
        from huggingface_hub import constants, snapshot_download
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name} is read from the Hugging Face hub with huggingface_hub, which is not "
            "installed; install it with: pip install 'cello1[local]'"
        ) from error
    offline = constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT)
    try:
        return Path(
            snapshot_download(
                name,
                repo_type=kind,
                revision=revision,
                allow_patterns=None if patterns is None else [*patterns],
                local_files_only=offline,
            )
        )
    except Exception as error:  # the client raises errors of several libraries
        at = f" at revision {revision}" if revision else ""
        said = f"says: {first_line(error)}"
        why = "cannot be reached, and its cache lacks it" if offline else said
        raise InputError(
            f"there is no {kind} {name}{at} here, and the Hugging Face hub {why}"
        ) from error


def reachable(endpoint: str) -> bool:
    """Return whether a server answers."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True  # behind a proxy a direct connection proves nothing
    address = urlparse(endpoint)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_SECONDS):
            return True
    except OSError:
        return False
