"""The engine: `python -m app.engine` takes picture bytes on a unix socket and answers with boxes.

It is a process of its own, so that a hostile picture, a leak or an out-of-memory kill costs the engine and
never the API. `python -m app.engine --check` only says whether it could start with these settings.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import signal
import socket
import sys

from app.engine.listener import EngineRunningError, listen
from app.engine.unusable_setting import UnusableSettingError
from app.logs import configure_logging, get_logger
from app.settings import Settings, get_settings
from app.settings_faults import faults_end_the_process
from detection.heap import keep_freed_memory

log = get_logger(__name__)


def main(arguments: list[str] | None = None) -> None:
    options = _parse(arguments)
    with faults_end_the_process():
        settings = get_settings()
    configure_logging(settings)
    faulthandler.register(signal.SIGUSR1)  # where it hangs: asked before it is killed for that
    # As the workers number the accelerators; CUDA itself would begin with the fastest.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    try:
        if options.check:
            _check(settings)
            return
        with listen(settings.engine_socket) as listener:
            _serve(settings, listener)
    except EngineRunningError as error:
        log.error("engine cannot start", reason=str(error))
        sys.exit(1)
    except UnusableSettingError as error:
        log.error("engine cannot start", reason=str(error))
        sys.exit(os.EX_CONFIG)


def _serve(settings: Settings, listener: socket.socket) -> None:
    keep_freed_memory()
    # Loading torch takes seconds. Clients can connect before: they wait instead of being turned away.
    import uvloop

    from app.engine.run import run

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, listener))


def _check(settings: Settings) -> None:
    """Find what would end the engine again and again, for whoever starts it without looking at its status."""
    from app.engine.device import choose_device

    device = choose_device(settings)
    log.info("engine can start", device=device.name, backend=device.shape.executor)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.engine", description="Detect objects in pictures.")
    parser.add_argument(
        "--check", action="store_true", help="only say whether device and backend of the settings are there"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
