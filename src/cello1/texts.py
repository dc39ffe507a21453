"""Text files that people write: lists and tables, as editors and spreadsheets leave them.

One reader for candidates, markers and aliases: UTF-8 with or without a mark, UTF-16, line ends of
any system, blank lines, commas, semicolons or tabs, gzipped or not, workbooks.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from cello1.errors import InputError, brief, first_line

if TYPE_CHECKING:
    import pandas as pd

# A list of names or markers has a few megabytes; what is larger is something else.
_MOST_BYTES = 512 << 20
_WORKBOOKS = (".xlsx", ".xls")


def read_text(path: Path, what: str) -> str:
    """Read a text file; line ends become those of Unix.

    Parameters
    ----------
    path
        The file, maybe gzipped.
    what
        What it should be, for messages: ``a list of candidates``.

    Raises
    ------
    InputError
        When it cannot be read or is no text.
    """
    if not path.exists():
        raise InputError(f"{path} cannot be read: it does not exist; expected {what}")
    if not path.is_file():
        raise InputError(f"{path} cannot be read: it is no file; expected {what}")
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}); expected {what}") from error
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path} is larger than {_MOST_BYTES >> 20} MB; expected {what}")
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} is no UTF-8 text (line {line} has {brief(content[error.start : error.end])}); "
            f"expected {what}: save it as UTF-8"
        ) from error
    if "\0" in text:
        raise InputError(f"{path} is no text file (it has zero bytes); expected {what}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, what: str) -> list[str]:
    """Read the lines of a list, without blanks around them, empty ones and comments (``#``).

    Quotes that a spreadsheet put around a whole line are taken off.

    Raises
    ------
    InputError
        When the file cannot be read.
    """
    lines = [" ".join(line.split()) for line in read_text(path, what).split("\n")]
    return [_unquoted(line) for line in lines if line and not line.startswith("#")]


def read_table(path: Path, what: str) -> pd.DataFrame:
    """Read a table with a header, all fields as text without blanks around them.

    What parts the fields is found in the header: a tab, a semicolon or a comma. Rows without
    any field are passed over, and missing fields are empty.

    Raises
    ------
    InputError
        When it cannot be read or has no header.
    """
    import pandas as pd

    if path.suffix in _WORKBOOKS:
        frame = _workbook(path, what)
    else:
        text = read_text(path, what)
        header = next((line for line in text.split("\n") if line.strip()), "")
        if not header:
            raise InputError(f"{path} is empty; expected {what}")
        comma = max("\t;,", key=lambda mark: (header.count(mark), mark == ","))
        try:
            frame = pd.read_csv(io.StringIO(text), sep=comma, dtype=str, keep_default_na=False)
        except (ValueError, csv.Error) as error:
            raise InputError(
                f"{path} cannot be read as a table ({first_line(error)}); expected {what}"
            ) from error
    frame = frame.rename(columns=lambda name: " ".join(str(name).split()))
    frame = frame.fillna("").astype(str).apply(lambda column: column.str.strip())
    told: pd.DataFrame = frame[(frame != "").any(axis=1)].reset_index(drop=True)
    return told


def _workbook(path: Path, what: str) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise InputError(f"{path} cannot be read: it does not exist; expected {what}")
    try:
        frame: pd.DataFrame = pd.read_excel(path, dtype=str)
        return frame
    except ImportError as error:
        raise InputError(
            f"{path}: reading a workbook needs openpyxl; install it or save the table as CSV"
        ) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as a workbook ({first_line(error)}); expected {what}"
        ) from error


def _unquoted(line: str) -> str:
    whole = len(line) > 1 and line[0] == line[-1] == '"' and line.count('"') == 2
    return line[1:-1].strip() if whole else line
