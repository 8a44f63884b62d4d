"""Names inside an archive: only such that mean the same, harmless place on every system."""

from __future__ import annotations

import re
import unicodedata

from detection.data.archive.limits import ArchiveFault
from detection.data.wording import printable
from detection.errors import ArchiveError

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 1024
MAX_DEPTH = 32

_DRIVE = re.compile(r"[A-Za-z]:")
_JUNK_FOLDERS = {"__MACOSX"}
_JUNK_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_APPLE_DOUBLE = "._"


def safe_parts(name: str) -> tuple[str, ...]:
    """Split a name into folders and file name, in Unicode's composed form (NFC); `()` is the root itself.

    Labels written on another system find their pictures through the composed form. A leading `./`, as tar
    writes it, and the final `/` of a folder are allowed; nothing else that would have to be interpreted is.

    Raises:
        ArchiveError: `archive_path`, with what is wrong with the name.
    """
    problem = _name_problem(name)
    if problem:
        raise _refused(name, problem)
    path = unicodedata.normalize("NFC", name).removeprefix("./").removesuffix("/")
    parts = tuple(path.split("/")) if path not in ("", ".") else ()
    problem = next(filter(None, map(_part_problem, parts)), None)
    if problem is None and len(parts) > MAX_DEPTH:
        problem = f"more than {MAX_DEPTH} folders deep"
    if problem:
        raise _refused(name, problem)
    return parts


def is_junk(parts: tuple[str, ...]) -> bool:
    """Return whether a desktop left this file behind without being asked."""
    if not _JUNK_FOLDERS.isdisjoint(parts):
        return True
    return bool(parts) and (parts[-1] in _JUNK_FILES or parts[-1].startswith(_APPLE_DOUBLE))


def _refused(name: str, problem: str) -> ArchiveError:
    problem = f"{problem}; names such as images/train/a.jpg are expected"
    return ArchiveError(ArchiveFault.PATH, printable(name), problem)


def _name_problem(name: str) -> str | None:
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        return "the name holds control characters"
    if "\\" in name:
        return "the name holds a backslash; folders are separated by /"
    if name.startswith("/") or _DRIVE.match(name):
        return "the name is absolute"
    if len(name.encode()) > MAX_PATH_BYTES:
        return f"the name is longer than {MAX_PATH_BYTES} bytes"
    return None


def _part_problem(part: str) -> str | None:
    # "．．" and "℀" become ".." and "a/c" on systems that normalise names
    folded = unicodedata.normalize("NFKC", part)
    if part == "" or folded in (".", ".."):
        return "the name has an empty, . or .. part"
    if "/" in folded or "\\" in folded:
        return "the name holds a character that stands for a slash"
    if part.endswith((".", " ")):
        return "a part of the name ends with a dot or a space"
    if len(part.encode()) > MAX_COMPONENT_BYTES:
        return f"a part of the name is longer than {MAX_COMPONENT_BYTES} bytes"
    return None
