"""What a CPU is called, as the system tells it."""

from __future__ import annotations

from pathlib import Path

from detection.processor import processor_name


def test_a_processor_has_its_name_where_the_system_tells_it(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Fast CPU @ 2 GHz\nmodel name\t: Other\n")
    assert processor_name(told) == "Fast CPU @ 2 GHz"
    told.write_text("CPU implementer\t: 0x41\n")
    assert processor_name(told) == processor_name(tmp_path / "missing")
