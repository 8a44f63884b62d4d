"""How much memory a worker believes in."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from worker.memory import memory_limit_bytes

HOST = int(psutil.virtual_memory().total)
MIB = 1024**2
NO_LIMIT = "9223372036854771712"


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": f"{64 * MIB}"}, 64 * MIB),
        ("0::/\n", {"memory.max": "max"}, HOST),
        ("0::/a/b\n", {"a/memory.max": f"{32 * MIB}", "a/b/memory.max": "max"}, 32 * MIB),
        ("0::/a/b\n", {"a/memory.max": f"{32 * MIB}", "a/b/memory.max": f"{16 * MIB}"}, 16 * MIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": f"{64 * MIB}"}, 64 * MIB),
        ("4:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": f"{8 * MIB}"}, 8 * MIB),
        ("4:memory:/path/of/host\n", {"memory/memory.limit_in_bytes": f"{64 * MIB}"}, 64 * MIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": NO_LIMIT}, HOST),
        ("3:cpu:/\n", {"memory/memory.limit_in_bytes": f"{64 * MIB}"}, HOST),
        ("0::/\n", {"memory.max": str(HOST * 2)}, HOST),
        ("", {}, HOST),
    ],
    ids=[
        "2",
        "2 without a limit",
        "2 around ours",
        "2 both",
        "1",
        "1 with others",
        "1 in a container",
        "1 without a limit",
        "other controller",
        "more than the host",
        "no groups",
    ],
)
def test_the_smallest_limit_counts(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: int
) -> None:
    (tmp_path / "own").write_text(groups)
    for path, content in limits.items():
        file = tmp_path / "mounted" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    assert memory_limit_bytes(tmp_path / "own", tmp_path / "mounted") == expected


def test_this_process_has_some_memory() -> None:
    assert 0 < memory_limit_bytes() <= HOST
