"""What ends the engine before it serves. Plain Python, so that it can be told before torch is loaded."""


class UnusableSettingError(Exception):
    """The engine cannot start with a setting; the message names it, and what works here."""
