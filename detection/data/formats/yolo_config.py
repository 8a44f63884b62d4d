"""The data.yaml of a YOLO dataset: class names and where the splits lie; or what takes its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from detection.data.class_names import ClassNames
from detection.data.file_tree import FileTree
from detection.data.finding_log import FindingCode, FindingLog
from detection.data.records import Split
from detection.data.splits import split_of_word
from detection.data.wording import quoted
from detection.errors import DatasetFormatError

MAX_YAML_BYTES = 256 * 1024
MAX_NAMES_BYTES = 16 * 1024**2
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt")


@dataclass(frozen=True, slots=True)
class YoloConfig:
    """What holds for the whole dataset."""

    names: dict[int, str] | None = None
    """Class names by number; None when the archive has none."""
    places: tuple[tuple[Split, str], ...] = ()
    """Folders or lists of pictures, as paths of whatever machine the file was written on."""
    file: str = ""
    """Where this stands."""


def find_config(tree: FileTree, log: FindingLog) -> YoloConfig:
    """Return the configuration nearest to the root; empty when there is none."""
    for name in sorted(tree.with_suffix(".yaml", ".yml"), key=_nearest_first):
        config = _read_yaml(tree, name, log)
        if config is not None:
            return config if config.names is not None else replace(config, names=_find_names(tree, log)[0])
    names, file = _find_names(tree, log)
    return YoloConfig(names=names, file=file)


def _find_names(tree: FileTree, log: FindingLog) -> tuple[dict[int, str] | None, str]:
    """Return the class names of the text file nearest to the root, and its name."""
    candidates = [name for name in tree.names if name.rsplit("/", 1)[-1].casefold() in NAME_FILES]
    for name in sorted(candidates, key=_nearest_first):
        names = _read_names(tree, name, log)
        if names:
            return names, name
    return None, ""


def _nearest_first(name: str) -> tuple[int, bool, str]:
    return name.count("/"), not name.endswith(("data.yaml", "data.yml", "dataset.yaml")), name


_PLAIN_TAGS = {None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "seq", "map"))}


class _TextLoader(yaml.BaseLoader):
    """Scalars stay text, for a class may be called `no`; aliases, which can multiply, are refused."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read")
        tag = getattr(self.peek_event(), "tag", None)
        if tag not in _PLAIN_TAGS:
            raise yaml.YAMLError(f"the tag {quoted(str(tag))} is not read")
        return super().compose_node(parent, index)


def _read_yaml(tree: FileTree, name: str, log: FindingLog) -> YoloConfig | None:
    """Return what a YAML file says, or None when it is about something else."""
    try:
        content = yaml.load(tree.read_text(name, max_bytes=MAX_YAML_BYTES), Loader=_TextLoader)
    except DatasetFormatError as error:
        log.add(FindingCode.LABEL_FILE_INVALID, name, error.problem)
        return None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:300] or "nested too deeply"
        log.add(FindingCode.LABEL_FILE_INVALID, name, f"it is not readable YAML: {problem}")
        return None
    if not isinstance(content, dict) or not {"names", "nc", "train"} & content.keys():
        return None
    return YoloConfig(_class_names(content.get("names"), name, log), _places(content), name)


def _class_names(value: object, file: str, log: FindingLog) -> dict[int, str] | None:
    """Accept a list, or a mapping from number to name."""
    if isinstance(value, list):
        raws: dict[int, object] = dict(enumerate(value))
    elif isinstance(value, dict):
        raws = dict(_numbered(value, file, log))
    else:
        return None
    return _clean(raws, file, log) or None


def _numbered(names: dict[object, object], file: str, log: FindingLog) -> Iterator[tuple[int, object]]:
    for key, name in names.items():
        if _is_number(key):
            yield int(str(key)), name
        else:
            message = f"{key!s} is no number of a class; 0, 1, 2, … are expected"
            log.add(FindingCode.LABEL_INVALID, file, message, where="names")


def _clean(raws: dict[int, object], file: str, log: FindingLog) -> dict[int, str]:
    """Name the classes; those without a name last, so that theirs is not taken from another."""
    class_names, names, seen = ClassNames(log), dict[int, str](), set[str]()
    for number, raw in raws.items():
        where = f"class {number}"
        name = names[number] = class_names.take(raw, file, where) if isinstance(raw, str) else ""
        if name in seen:
            message = f"{name!r} is listed twice and taken as one class"
            log.add(FindingCode.CLASS_DUPLICATE, file, message, where=where)
        if name:
            seen.add(name)
    for number, name in names.items():
        if not name:
            names[number] = class_names.invent(f"class_{number}", file, f"class {number}")
    return names


def _is_number(key: object) -> bool:
    return isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 10


def _places(content: dict[str, object]) -> tuple[tuple[Split, str], ...]:
    places = []
    for key, value in content.items():
        split = split_of_word(key) if isinstance(key, str) else None
        texts = value if isinstance(value, list) else [value]
        if split is not None:
            places += [(split, text) for text in texts if isinstance(text, str) and text.strip()]
    return tuple(places)


def _read_names(tree: FileTree, name: str, log: FindingLog) -> dict[int, str] | None:
    try:
        lines = tree.read_lines(name, max_bytes=MAX_NAMES_BYTES)
    except DatasetFormatError as error:
        log.add(FindingCode.LABEL_FILE_INVALID, name, error.problem)
        return None
    while lines and not lines[-1].strip():
        lines.pop()
    return _class_names(lines, name, log)
