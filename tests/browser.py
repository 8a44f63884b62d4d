"""A headless Chromium that a test drives over its debugging pipe; nothing has to be installed for that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)
IN_THE_BROWSER, OUT_OF_THE_BROWSER = 3, 4
"""The descriptors on which it listens and answers; JSON, each message with a zero byte behind it."""


class Browser:
    """One page in a browser; a context manager."""

    def __init__(self, folder: Path, *, width: int = 1100, height: int = 900) -> None:
        self._folder, self._size = folder, (width, height)
        self._number, self._read = 0, b""

    def __enter__(self) -> Browser:
        to_browser, self._write = os.pipe()
        self._answers, from_browser = os.pipe()
        width, height = self._size
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$@" {IN_THE_BROWSER}<&{to_browser} {OUT_OF_THE_BROWSER}>&{from_browser}',
                "browser",
                str(CHROMIUM),
                *OPTIONS,
                f"--window-size={width},{height}",
                f"--user-data-dir={self._folder}",
            ],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._write)  # it ends when nobody can talk to it any more
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._answers)

    def open(self, address: str) -> None:
        self.ask("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """Return the value of an expression, awaited."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str, within_s: float = 30.0) -> None:
        """Return when an expression is true."""
        deadline = time.monotonic() + within_s
        while not self.run(f"!!({script})"):
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return str(self.run("document.body.innerText"))

    def resize(self, width: int, height: int = 900) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def choose_file(self, selector: str, file: Path) -> None:
        chosen = self.ask("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        self.ask("DOM.setFileInputFiles", files=[str(file)], objectId=chosen["objectId"])

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what the page answers to a command of the debugging protocol."""
        return self._ask(method, session=self._session, **parameters)

    def _ask(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:  # ends with the browser at the latest: then there is nothing more to read
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            piece = os.read(self._answers, 1 << 16)
            assert piece, "the browser has ended"
            self._read += piece
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
