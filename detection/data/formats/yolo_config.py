"""The data.yaml of a YOLO dataset: class names and where the splits lie; or what takes its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from detection.data.class_names import clean_class_name
from detection.data.file_tree import FileTree
from detection.data.finding_log import FindingCode, FindingLog
from detection.data.records import Split
from detection.data.splits import split_of_word
from detection.errors import DatasetFormatError

MAX_YAML_BYTES = 256 * 1024
MAX_NAMES_BYTES = 16 * 1024**2
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt")
MOST_CLASSES = 100_000


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
            return config
    candidates = [name for name in tree.names if name.rsplit("/", 1)[-1] in NAME_FILES]
    for name in sorted(candidates, key=_nearest_first):
        names = _read_names(tree, name, log)
        if names:
            return YoloConfig(names=names, file=name)
    return YoloConfig()


def _nearest_first(name: str) -> tuple[int, bool, str]:
    return name.count("/"), not name.endswith(("data.yaml", "data.yml", "dataset.yaml")), name


class _TextLoader(yaml.SafeLoader):
    """Scalars stay text, for a class may be called `no`; aliases, which can multiply, are refused."""

    yaml_implicit_resolvers = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read")
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
        pairs = list(enumerate(value))
    elif isinstance(value, dict):
        pairs = [(int(key), name) for key, name in value.items() if _is_number(key)]
    else:
        return None
    names: dict[int, str] = {}
    seen: set[str] = set()
    for number, raw in pairs[:MOST_CLASSES]:
        name = clean_class_name(raw) if isinstance(raw, str) else ""
        names[number] = name or f"class_{number}"
        if names[number] in seen:
            message = f"{name!r} is listed twice and taken as one class"
            log.add(FindingCode.CLASS_DUPLICATE, file, message, where=f"class {number}")
        seen.add(names[number])
    return names or None


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
        lines = tree.read_text(name, max_bytes=MAX_NAMES_BYTES).splitlines()
    except DatasetFormatError as error:
        log.add(FindingCode.LABEL_FILE_INVALID, name, error.problem)
        return None
    while lines and not lines[-1].strip():
        lines.pop()
    return _class_names(lines, name, log)
