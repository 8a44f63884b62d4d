"""The configuration of the supervisor, generated anew at every start."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from app.settings import MIB, Settings
from app.supervisor.programs import Program

LOG_BYTES = 10 * MIB
LOG_BACKUPS = 3
START_SECONDS = 1
"""A program that lives this long has started."""
START_RETRIES = 10
"""Each waits a second longer than the one before: about a minute in all."""
FIRST_TO_STOP, LAST_TO_STOP = 900, 100
"""Supervisor's priorities: the group with the highest one is stopped first."""

Sections = dict[str, dict[str, str]]


def logs_folder(settings: Settings) -> Path:
    return settings.home_path / "logs"


def supervisor_socket(settings: Settings) -> Path:
    """Where the supervisor can be asked about its programs, by us or by `supervisorctl`."""
    return settings.home_path / "run" / "supervisor.sock"


def supervisor_configuration(settings: Settings, programs: Iterable[Program]) -> str:
    """Return the text of the configuration file."""
    programs = tuple(programs)
    sections: Sections = {
        "supervisord": {
            "nodaemon": "true",
            "logfile": str(logs_folder(settings) / "supervisor.log"),
            "logfile_maxbytes": str(LOG_BYTES),
            "pidfile": str(supervisor_socket(settings).with_suffix(".pid")),
            "childlogdir": str(logs_folder(settings)),
            "minfds": "256",
            "silent": "true",
        },
        "unix_http_server": {"file": str(supervisor_socket(settings)), "chmod": "0600"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{supervisor_socket(settings)}"},
    }
    for program in programs:
        sections[f"program:{program.name}"] = _program(settings, program)
    for name, priority, last in (("front", FIRST_TO_STOP, False), ("back", LAST_TO_STOP, True)):
        members = [program.name for program in programs if program.stops_last is last]
        if members:
            sections[f"group:{name}"] = {"programs": ",".join(members), "priority": str(priority)}
    return "\n".join(_section(name, options) for name, options in sections.items())


def _program(settings: Settings, program: Program) -> dict[str, str]:
    return {
        "command": shlex.join(program.command),
        # Whatever ends is started again, but for one that says that its settings do not let it.
        "autorestart": "unexpected",
        "exitcodes": str(os.EX_CONFIG),
        "startsecs": str(START_SECONDS),
        "startretries": str(START_RETRIES),
        "stopwaitsecs": str(program.stop_wait_s),
        "stopasgroup": "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": str(logs_folder(settings) / f"{program.name}.log"),
        "stdout_logfile_maxbytes": str(LOG_BYTES),
        "stdout_logfile_backups": str(LOG_BACKUPS),
    }


def _section(name: str, options: Mapping[str, str]) -> str:
    # A per cent sign would begin an expansion.
    lines = [f"{key}={value.replace('%', '%%')}" for key, value in options.items()]
    return "\n".join((f"[{name}]", *lines, ""))
