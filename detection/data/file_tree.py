"""The files of an unpacked dataset by name; whatever labels say, nothing outside of it is reached."""

from __future__ import annotations

import os
import re
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

from detection.data.path_index import Alike, PathIndex
from detection.data.records import Split
from detection.data.splits import may_belong, split_of_folders
from detection.data.wording import counted
from detection.errors import DatasetFormatError

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"}
FOREIGN_PICTURE_SUFFIXES = {".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".jp2", ".mpo"}
"""Pictures of kinds that are not read: reported one by one instead of being overlooked."""
ARCHIVE_SUFFIXES = {".zip", ".tar", ".tgz", ".gz", ".zst", ".7z", ".rar"}
MOST_KINDS = 8
LONGEST_PATH = 4096
"""Of a path in a label file the last so many characters count; no system has longer ones."""


class FileTree:
    """All regular files below a root, named by their path with forward slashes, sorted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._paths = dict(sorted(_walk(root)))
        self.names = tuple(self._paths)
        self.pictures = tuple(name for name in self.names if is_picture(name))
        self._names_in_any_case: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._names_in_any_case[_key(name)].append(name)
        self._pictures_by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.pictures:
            self._pictures_by_stem[_key(stem_of(name))].append(name)
        self._stems_in_folders = Counter(map(_folder_and_stem, self.pictures))
        self._alike: dict[tuple[str, Split | None], Alike | None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def path(self, name: str) -> Path:
        return self._paths[name]

    def with_suffix(self, *suffixes: str) -> list[str]:
        return [name for name in self.names if name.casefold().endswith(suffixes)]

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Return a file's content.

        Raises:
            DatasetFormatError: it is larger than it may be.
        """
        path = self._paths[name]
        size = path.stat().st_size
        if size > max_bytes:
            problem = f"{counted(size, 'byte')}; at most {max_bytes:,} are read"
            raise DatasetFormatError(name, "", problem)
        return path.read_bytes()

    def read_text(self, name: str, *, max_bytes: int) -> str:
        """Return a file's text, UTF-8 with or without a byte order mark.

        Raises:
            DatasetFormatError: it is larger than it may be, or no UTF-8.
        """
        try:
            return self.read(name, max_bytes=max_bytes).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DatasetFormatError(name, "", "it is not UTF-8 text") from None

    def read_lines(self, name: str, *, max_bytes: int) -> list[str]:
        """Return a text's lines, which end as on Unix, Windows or old Macs, and nowhere else.

        Raises:
            DatasetFormatError: as `read_text`.
        """
        return re.split("\r\n|\r|\n", self.read_text(name, max_bytes=max_bytes))

    def actual(self, name: str) -> str | None:
        """Return the file of this name, or else the only one that differs from it in case alone."""
        if name in self._paths:
            return name
        alike = self._names_in_any_case.get(_key(name), [])
        return alike[0] if len(alike) == 1 else None

    def has_namesake(self, picture: str) -> bool:
        """Return whether another picture of the folder has this name, in any case and with any suffix."""
        return self._stems_in_folders[_folder_and_stem(picture)] > 1

    def find_picture(self, wanted: str, *, near: str = "", split: Split | None = None) -> str | None:
        """Return the picture that a label file means by a path, or None.

        Paths come from other machines: absolute, with backslashes, in another case, relative to another
        folder. The picture whose path agrees with the longest end of the wanted one is taken; of several,
        one in a folder of the same split, then the one nearest to the file `near`. Where folders of the
        wanted path are not found, only an unmistakable picture is taken.
        """
        for path in dict.fromkeys((wanted, wanted.strip())):  # a name may begin with a space
            found = self._picture_index.best_match(_clean_parts(path), near=near, split=split)
            if found is not None:
                return found
        return None

    def find_folder(self, wanted: str, *, near: str = "", split: Split | None = None) -> str | None:
        """Return the folder with pictures below it that a path from another machine means, or None.

        A path that names a split means a folder that does, too.
        """
        parts = _clean_parts(wanted.strip())
        if not parts:
            return ""
        found = self._folder_index.best_match(parts, near=near, split=split)
        named = split_of_folders("/".join([*parts, ""]))
        return found if named in (None, split_of_folders(f"{found}/")) else None

    def pictures_below(self, folder: str) -> tuple[str, ...]:
        """Return the pictures in a folder and in those inside it; the top is the empty name."""
        if not folder:
            return self.pictures
        first = bisect_left(self.pictures, f"{folder}/")
        return self.pictures[first : bisect_left(self.pictures, f"{folder}0")]  # 0 comes next to the slash

    def find_file(self, wanted: str, *, near: str = "") -> str | None:
        """Return the file that a path from another machine means, or None."""
        return self._file_index.best_match(_clean_parts(wanted.strip()), near=near, split=None)

    def find_picture_by_stem(self, stem: str, *, near: str) -> str | None:
        """Return the picture with this name before its suffix, the one nearest to the file `near`.

        One in a folder of another split than the file's is not taken.
        """
        key = _key(stem), split_of_folders(near)
        if key not in self._alike:
            fitting = [name for name in self._pictures_by_stem.get(key[0], []) if may_belong(name, key[1])]
            self._alike[key] = Alike(fitting) if fitting else None
        alike = self._alike[key]
        return alike.nearest(near) if alike is not None else None

    @cached_property
    def _picture_index(self) -> PathIndex:
        return PathIndex(self.pictures)

    @cached_property
    def _folder_index(self) -> PathIndex:
        """Of the folders with pictures below them."""
        folders = {folder_of(name) for name in self.pictures}
        around = {str(each) for folder in folders for each in PurePosixPath(folder).parents if each.name}
        return PathIndex((folders | around) - {""})

    @cached_property
    def _file_index(self) -> PathIndex:
        return PathIndex(self.names)

    def summary(self) -> str:
        """Say in a few words what lies here, for a message that nothing usable was found."""
        counts = Counter(PurePosixPath(name).suffix.casefold() or "no suffix" for name in self.names)
        if not counts:
            return "no files"
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(MOST_KINDS))
        hint = "; archives inside the archive stay closed" if ARCHIVE_SUFFIXES & counts.keys() else ""
        return f"{counted(len(self.names), 'file')} ({kinds}{hint})"


def is_picture(name: str) -> bool:
    """Return whether a file is a picture by its suffix, of a kind that is read or of another."""
    return PurePosixPath(name).suffix.casefold() in PICTURE_SUFFIXES | FOREIGN_PICTURE_SUFFIXES


def stem_of(name: str) -> str:
    """Return the last part of a path without a picture's or label file's suffix: `img.001` stays whole."""
    last = name.rsplit("/", 1)[-1]
    path = PurePosixPath(last)
    known = PICTURE_SUFFIXES | FOREIGN_PICTURE_SUFFIXES | {".xml", ".txt", ".json"}
    return path.stem if path.suffix.casefold() in known else last


def folder_of(name: str) -> str:
    """Return a path without its last part; empty at the top."""
    return name.rpartition("/")[0]


def _walk(root: Path) -> Iterable[tuple[str, Path]]:
    for folder, _, file_names in os.walk(root, followlinks=False):
        for file_name in file_names:
            path = Path(folder, file_name)
            if path.is_file() and not path.is_symlink():
                yield unicodedata.normalize("NFC", path.relative_to(root).as_posix()), path


def _clean_parts(path: str) -> list[str]:
    text = unicodedata.normalize("NFC", path[-LONGEST_PATH:]).replace("\\", "/")
    return [part for part in text.split("/") if part not in ("", ".", "..") and not part.endswith(":")]


def _key(text: str) -> str:
    return text.casefold()


def _folder_and_stem(name: str) -> str:
    return _key(f"{folder_of(name)}/{stem_of(name)}")
