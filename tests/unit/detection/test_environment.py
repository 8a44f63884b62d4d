"""What a model's provenance says of whatever computed it."""

from __future__ import annotations

import torch

from detection.devices import CPU
from detection.environment import describe_environment


def test_everything_that_may_change_the_numbers_is_named() -> None:
    told = describe_environment((CPU,))
    assert told["devices"] == ["CPU"]
    assert told["threads"] == torch.get_num_threads()
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert all(told[name] for name in ("source", "processor", "instructions", "platform"))
