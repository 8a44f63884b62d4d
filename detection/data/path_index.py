"""Finds names by paths from other machines: by the end of a path, then by nearness to a file. Plain Python.

However many names are alike, a search takes no longer: hundreds of thousands of pictures may be called the
same, in a folder each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from detection.data.records import Split
from detection.data.splits import may_belong, split_of_folders


class PathIndex:
    """Names of files or folders, in order of their reversed paths: those with a common end lie together."""

    def __init__(self, names: Iterable[str]) -> None:
        reversed_paths = sorted((_reversed(name), name) for name in names)
        self._keys = [key for key, _ in reversed_paths]
        self._names = [name for _, name in reversed_paths]
        self._alike: dict[tuple[int, int, Split | None], Alike] = {}

    def best_match(self, parts: Sequence[str], *, near: str, split: Split | None) -> str | None:
        """Return the name that agrees with the longest end of a path, in any case, or None.

        Of several, one in a folder of the same split is taken, then the one nearest to the file `near`.
        Where a part of the path is not found, only an unmistakable name is.
        """
        found, depth = self._with_longest_end(parts)
        if not depth:
            return None
        split = split or split_of_folders("/".join([*parts, ""]))
        best = self._of_split(found, split)
        if depth < len(parts) and (len(best) > 1 or not may_belong(best.first, split)):
            return None
        return best.nearest(near)

    def _with_longest_end(self, parts: Sequence[str]) -> tuple[range, int]:
        """Return where the names stand, and in how many parts they agree."""
        found, end = range(0), ""
        for depth, part in enumerate(reversed(parts)):
            end += f"{part.casefold()}/"
            # whatever begins with `end` comes before the same text with the character after the slash, 0
            longer = range(bisect_left(self._keys, end), bisect_left(self._keys, f"{end[:-1]}0"))
            if not longer:
                return found, depth
            found = longer
        return found, len(parts)

    def _of_split(self, found: range, split: Split | None) -> Alike:
        key = found.start, found.stop, split
        if key in self._alike:
            return self._alike[key]
        names = self._names[found.start : found.stop]
        alike = Alike([name for name in names if split_of_folders(name) is split] or names)
        if len(found) > 1:
            self._alike[key] = alike
        return alike


class Alike:
    """Names of which the one nearest to a file is wanted."""

    def __init__(self, names: Sequence[str]) -> None:
        """Prepare for at least one name."""
        self.first = names[0]
        self._num_names = len(names)
        self._below: dict[str, str] = {}
        if len(names) > 1:
            for name in sorted(names, key=lambda name: (len(name), name)):
                for folder in _folders_around(name):
                    self._below.setdefault(folder, name)

    def __len__(self) -> int:
        return self._num_names

    def nearest(self, near: str) -> str:
        """Return the name that shares the most folders with a file; of several the shortest."""
        found = self.first
        for folder in _folders_around(near):
            if folder not in self._below:
                break
            found = self._below[folder]
        return found


def _reversed(name: str) -> str:
    """Return `a.jpg/train/images/` for `images/train/A.jpg`; a slash also ends the last part."""
    return "/".join([*reversed(name.casefold().split("/")), ""])


def _folders_around(name: str) -> Iterator[str]:
    """Yield the folders that hold a file, from the top, which is empty, downwards."""
    folder = ""
    yield folder
    for part in name.casefold().split("/")[:-1]:
        folder += f"{part}/"
        yield folder
