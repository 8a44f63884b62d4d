"""What a model's provenance says of whatever computed it."""

from __future__ import annotations

from pathlib import Path

import torch

from detection.devices import CPU
from detection.environment import describe_environment, processor_name


def test_everything_that_may_change_the_numbers_is_named() -> None:
    told = describe_environment((CPU,))
    assert told["devices"] == ["CPU"]
    assert told["threads"] == torch.get_num_threads()
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert all(told[name] for name in ("source", "processor", "instructions", "platform"))


def test_a_processor_has_its_name_where_the_system_tells_it(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Fast CPU @ 2 GHz\nmodel name\t: Other\n")
    assert processor_name(told) == "Fast CPU @ 2 GHz"
    told.write_text("CPU implementer\t: 0x41\n")
    assert processor_name(told) == processor_name(tmp_path / "missing")
