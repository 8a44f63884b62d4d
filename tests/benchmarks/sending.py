"""Runs the load generator against a server and reads what it counted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.comparison import percentile
from tests.benchmarks.load.plan import Plan
from tests.benchmarks.peers.install import ROOT
from tests.benchmarks.started import Server

PROGRAM = [sys.executable, "-S", "-m", "tests.benchmarks.load"]
LONGEST_S = 900.0


@dataclass(frozen=True)
class Counts:
    """What came back from one server."""

    raw: dict[str, Any]

    @property
    def good(self) -> dict[str, Any]:
        """Of the clients that behave."""
        found: dict[str, Any] = self.raw["good"]
        return found

    @property
    def per_s(self) -> float:
        """Good answers a second."""
        return len(self.good["times_ms"]) / float(self.raw["seconds"])

    @property
    def cpu_ms(self) -> float:
        """Processor time of the sender for one request."""
        return float(self.raw["client_cpu_ms"])

    def ms(self, share: float) -> float:
        """Return a percentile of the good answers; without any it is infinite."""
        times_ms = self.good["times_ms"]
        return percentile(times_ms, share) if times_ms else math.inf

    @property
    def troubles(self) -> dict[str, int]:
        """Of the good clients: everything that was no answer with status 200."""
        others = {status: times for status, times in self.good["statuses"].items() if status != "200"}
        return {**others, **self.good["failures"]}


def send(server: Server, pictures: list[str], *, query: str = "", **more: Any) -> Counts:
    """Send pictures to a server as a plan says, from a process of its own."""
    plan = Plan(port=server.port, path=server.path + query, pictures=pictures, **more)
    done = subprocess.run(
        PROGRAM,
        cwd=ROOT,
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_S,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Counts(json.loads(done.stdout))
