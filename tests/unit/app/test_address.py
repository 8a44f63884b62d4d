"""Where the API is reached from this machine."""

from __future__ import annotations

import pytest

from app.address import is_loopback, server_address
from app.settings import Settings


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("fe80::1", "http://[fe80::1]:8000"),
        ("vision.example", "http://vision.example:8000"),
    ],
)
def test_the_address_can_be_opened(host: str, address: str) -> None:
    assert server_address(Settings(host=host)) == address


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("192.168.0.4", False),
        ("localhost.example", False),
    ],
)
def test_what_only_this_machine_can_reach(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours
