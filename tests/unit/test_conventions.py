"""The house rules that no linter knows, read from the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "worker", "detection")
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "core"}
RUNS_CODE = {"pickle", "cPickle", "dill", "shelve", "marshal", "cloudpickle", "joblib"}
"""Modules whose files can run code when they are read."""
SAFE_YAML = {"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader", "yaml.CBaseLoader"}
MAY_PRINT = ("app/cli/", "app/cli.py", "app/api/openapi.py", "tools/", "tests/benchmarks/")
PLACES = "|".join(
    (
        r"(?<![\w.])/(?:work|root|Users)/\w",
        r"\bfiles\.pythonhosted\.org",
        r"\bpypi\.org",
        r"\bregistry\.npmjs\.org",
        r"\bdownload\.pytorch\.org",
    )
)
"""Folders of one machine and addresses of registries: both belong to a user's own configuration."""
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)")

Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True)
class Source:
    """One Python file of the project."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parse(self.text)

    def nodes(self, kind: type[Node]) -> Iterator[Node]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kind))

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """Yield each call with the dotted name of what is called."""
        return ((dotted(call.func), call) for call in self.nodes(ast.Call))

    def place(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


Rule = Callable[[Source], Iterator[str]]


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` for an expression that is one."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def tracked_files() -> tuple[Path, ...]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = (ROOT / name for name in listing.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def sources() -> Iterator[Source]:
    for path in tracked_files():
        if path.suffix == ".py":
            yield Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


def modules_say_what_they_are_for(source: Source) -> Iterator[str]:
    if ast.get_docstring(source.tree) is None:
        yield f"{source.path}: has no docstring"


def module_names_mean_something(source: Source) -> Iterator[str]:
    for name in source.path.removesuffix(".py").split("/"):
        if name in SAYS_NOTHING:
            yield f"{source.path}: {name!r} says nothing"


def the_library_is_documented(source: Source) -> Iterator[str]:
    """Every public function and class of detection/; exceptions and enumerations may speak by their names."""
    if not source.path.startswith("detection/"):
        return
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        by_name = isinstance(node, ast.ClassDef) and (
            node.name.endswith("Error") or any(dotted(parent) == "StrEnum" for parent in node.bases)
        )
        if ast.get_docstring(node) is None and not by_name:
            yield f"{source.place(node)}: {node.name} has no docstring"


def the_library_never_reads_the_environment(source: Source) -> Iterator[str]:
    if source.path.startswith("detection/"):
        for node in source.nodes(ast.Attribute):
            if dotted(node) in {"os.environ", "os.getenv", "os.environb"}:
                yield f"{source.place(node)}: reads the environment"


def files_are_read_without_running_them(source: Source) -> Iterator[str]:
    for node in source.nodes(ast.Import):
        if RUNS_CODE & {alias.name.split(".")[0] for alias in node.names}:
            yield f"{source.place(node)}: {ast.unparse(node)}"
    for imported in source.nodes(ast.ImportFrom):
        if (imported.module or "").split(".")[0] in RUNS_CODE:
            yield f"{source.place(imported)}: {ast.unparse(imported)}"
    safe_loaders = {
        node.name for node in source.nodes(ast.ClassDef) if SAFE_YAML & {dotted(base) for base in node.bases}
    }
    for name, call in source.calls():
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        safe = {
            "torch.load": arguments.get("weights_only") == "True",
            "np.load": arguments.get("allow_pickle", "False") == "False",
            "yaml.load": arguments.get("Loader") in safe_loaders,
            "yaml.unsafe_load": False,
            "torch.jit.load": False,
            "torch.export.load": False,
        }
        if not safe.get(name, True):
            yield f"{source.place(call)}: {ast.unparse(call)}"


def nothing_reaches_a_shell(source: Source) -> Iterator[str]:
    for name, call in source.calls():
        in_shell = any(
            keyword.arg == "shell" and ast.unparse(keyword.value) != "False" for keyword in call.keywords
        )
        if in_shell or name in {"os.system", "os.popen", "eval", "exec"}:
            yield f"{source.place(call)}: {ast.unparse(call)}"


def only_the_command_line_prints(source: Source) -> Iterator[str]:
    if not source.path.startswith(MAY_PRINT):
        for name, call in source.calls():
            if name == "print":
                yield f"{source.place(call)}: print"


def every_error_is_either_expected_or_raised_again(source: Source) -> Iterator[str]:
    """A handler of everything raises, or gives its reason beside the linter's mark: `noqa: BLE001 - why`."""
    lines = source.text.splitlines()
    for handler in source.nodes(ast.ExceptHandler):
        kinds = ast.unparse(handler.type) if handler.type else "BaseException"
        if not re.search(r"\b(?:Base)?Exception\b", kinds):
            continue
        raises = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
        explained = re.search(r"noqa: BLE001\W+\w+\W+\w+", lines[handler.lineno - 1])
        if not raises and not explained:
            yield f"{source.place(handler)}: except {kinds}"


RULES: dict[Rule, tuple[str, str]] = {
    modules_say_what_they_are_for: ("app/a.py", "x = 1"),
    module_names_mean_something: ("app/utils.py", ""),
    the_library_is_documented: ("detection/a.py", "def area(box): ..."),
    the_library_never_reads_the_environment: ("detection/a.py", "import os\nos.environ['A']"),
    files_are_read_without_running_them: ("detection/a.py", "torch.load(path, weights_only=False)"),
    nothing_reaches_a_shell: ("worker/a.py", "run(command, shell=True)"),
    only_the_command_line_prints: ("app/a.py", "print(1)"),
    every_error_is_either_expected_or_raised_again: ("app/a.py", "try: f()\nexcept Exception: pass"),
}
"""Every rule, with the smallest file that breaks it."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: Rule) -> None:
    assert [offence for source in sources() for offence in rule(source)] == []


@pytest.mark.parametrize(("rule", "bad"), RULES.items(), ids=lambda value: getattr(value, "__name__", "bad"))
def test_rule_notices_what_it_forbids(rule: Rule, bad: tuple[str, str]) -> None:
    assert len(list(rule(Source(*bad)))) == 1


def test_no_folder_of_one_machine_and_no_registry_is_named() -> None:
    this = Path(__file__).resolve()
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked_files()
        if path != this
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), 1)
        if re.search(PLACES, line)
    ]
    assert found == []


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in tracked_files()
        if path.suffix == ".md"
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert broken == []


def test_every_test_is_found_by_pytest() -> None:
    strays = [
        source.path
        for source in sources()
        if source.path.startswith("tests/")
        and any(node.name.startswith("test_") for node in source.nodes(ast.FunctionDef))
        and not Path(source.path).name.startswith("test_")
    ]
    assert strays == []
