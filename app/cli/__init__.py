"""The command `harrier`: starts the server, and is a thin client of its REST API."""

from app.cli.commands import main

__all__ = ["main"]
