"""Class names: one line of visible text that every format can hold. Plain Python."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from detection.data.finding_log import FindingCode, FindingLog
from detection.data.findings import Severity
from detection.data.wording import counted, printable
from detection.errors import DatasetFormatError
from detection.names import HIDDEN, JOINERS, NAME_LENGTH

MOST_CLASSES = 25_000
"""More than any public dataset has; beyond it a name was taken for what is none."""
_SHOWN = 60
_LONGEST_ENDING = len(f" ({2 * MOST_CLASSES})")
_COMPOSED = 2000
"""Only so many characters are composed: the time that takes can grow with the square of their number."""

_NOT_WRITABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, and control characters."""


def clean_class_name(raw: object) -> str:
    """Return a name in one line, composed (NFC), without what cannot be seen; empty when nothing is left.

    Markup and right-to-left text are data like any other.
    """
    return _whole(str(raw))[:NAME_LENGTH].rstrip(f" {JOINERS}")


def writable(text: str) -> str:
    """Return a text with spaces for what some format cannot hold."""
    return _NOT_WRITABLE.sub(" ", text)


class ClassNames:
    """Cleans the names of one archive as they are read; every change is a finding, once for each name.

    Giving a name raises DatasetFormatError when it is one more than a dataset may have.
    """

    def __init__(self, log: FindingLog) -> None:
        self._log = log
        self._taken: dict[str, str] = {}
        self._used: set[str] = set()
        self._invented: dict[str, str] = {}
        self._next_number: dict[str, int] = {}
        """By what a name begins with; two that share it share the numbers."""

    def take(self, raw: object, file: str, where: str = "") -> str:
        """Return the name that `raw` becomes, always the same; empty when nothing of it can be shown."""
        text = str(raw)
        if text not in self._taken:
            self._taken[text] = name = self._clean(text)
            self._use(name)
            if name not in ("", text):
                self._report(text, name, file, where)
        return self._taken[text]

    def invent(self, wanted: str, file: str, where: str = "") -> str:
        """Return a name for a class that has none: `wanted`, unless another class is called so."""
        if wanted not in self._invented:
            self._invented[wanted] = name = self._unused(wanted)
            self._use(name)
            message = f"the class has no name that can be shown; it is called {name!r}"
            self._log.add(FindingCode.CLASS_NAME_FIXED, file, message, where=where)
        return self._invented[wanted]

    def _clean(self, text: str) -> str:
        """Names that differ only behind the cut stay two."""
        name = clean_class_name(text)
        return name if len(_whole(text)) <= NAME_LENGTH else self._unused(name)

    def _use(self, name: str) -> None:
        if name:
            self._used.add(name)
        if len(self._used) > MOST_CLASSES:
            problem = f"it has more than {MOST_CLASSES:,} classes, the most that a dataset may have"
            raise DatasetFormatError("", "", problem)

    def _unused(self, name: str) -> str:
        """Number a name that is taken; no number is tried twice, however many names begin alike."""
        candidate, start = name, name[: NAME_LENGTH - _LONGEST_ENDING]
        while candidate in self._used:
            number = self._next_number[start] = self._next_number.get(start, 1) + 1
            ending = f" ({number})"
            candidate = name[: NAME_LENGTH - len(ending)].rstrip() + ending
        return candidate

    def _report(self, text: str, name: str, file: str, where: str) -> None:
        message = (
            f"the class name '{printable(text, _SHOWN)}' ({counted(len(text), 'character')}) became "
            f"'{printable(name, _SHOWN)}': a name is one line of at most {NAME_LENGTH} visible characters"
        )
        severity = Severity.INFO if text.strip() == name else None
        self._log.add(FindingCode.CLASS_NAME_FIXED, file, message, where=where, severity=severity)


def report_similar(classes: Sequence[str], log: FindingLog) -> None:
    """Make a finding for classes that differ only in case or spaces: most often they are meant as one."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    for first, *others in alike.values():
        for other in others:
            message = (
                f"{other!r} differs from {first!r} only in case or spaces; they stay two classes. "
                'If they are one, say so in `classes`: {"merge": …}'
            )
            log.add(FindingCode.CLASS_SIMILAR, "", message)


def _whole(text: str) -> str:
    """Return the cleaned name, longer than a name may be if the text is."""
    seen = HIDDEN.sub("", " ".join(writable(text).split()))
    line = " ".join(seen.split()).strip(f" {JOINERS}")
    return unicodedata.normalize("NFC", line[:_COMPOSED]).strip(f" {JOINERS}")
