"""The loop of a load generator: one thread that drives all clients, in a closed or an open loop."""

from __future__ import annotations

import select
import socket
import time
from heapq import heappop, heappush
from itertools import count
from typing import Any

from tests.benchmarks.load.answers import Answer
from tests.benchmarks.load.clients import Client, ResettingClient
from tests.benchmarks.load.plan import Plan, Tally, requests_of

DRAIN_S = 10.0
"""How long answers that are still due when the time is up are waited for."""
NO_ANSWER = "no answer in time"
"""What is still due then; counted in an open loop, where every request has been."""


class Load:
    """Drives all clients until the time is up."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tallies = {"good": Tally(), "damaged": Tally(), "resetting": Tally()}
        self.late_ms: list[float] = []
        self.unsent = 0
        self._requests = requests_of(plan.pictures, plan)
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._timers: list[tuple[float, int, Client]] = []
        self._order = count()
        self._idle: list[Client] = []
        self._made = 0
        self._counting = self._ending = False
        self._answers = 0

    def run(self) -> dict[str, Any]:
        """Send everything and return the counts."""
        self._start_clients()
        self._turn_until(time.perf_counter() + self.plan.warm_up_s)
        self._counting, began, cpu_s = True, time.perf_counter(), time.process_time()
        if self.plan.rate is None:
            self._turn_until(began + self.plan.seconds)
        else:
            self._send_at_rate(began, self.plan.rate)
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
        if self.plan.rate is None:
            self._counting = False
        self._ending = True
        self._turn_until(time.perf_counter() + DRAIN_S)
        for client in tuple(self._clients.values()):
            if client.busy:
                self.note_failure(client.tally, NO_ANSWER)
            client.close()
        self._epoll.close()
        answers = sum(sum(tally.statuses.values()) for tally in self.tallies.values())
        return {
            **{name: vars(tally) for name, tally in self.tallies.items()},
            "seconds": took_s,
            "client_cpu_ms": 1000 * cpu_s / max(answers, 1),
            "late_ms": self.late_ms,
            "unsent": self.unsent,
        }

    def note(self, tally: Tally, answer: Answer, took_ms: float) -> None:
        if self._counting:
            tally.note(answer, took_ms, self.plan)
            self._answers += 1

    def note_failure(self, tally: Tally, how: str) -> None:
        if self._counting:
            tally.failures[how] += 1

    def free(self, client: Client) -> None:
        """Let a client that has its answer go on, or keep it for the next request of an open loop."""
        if self._ending:
            return
        if self.plan.rate is None or client.tally is not self.tallies["good"]:
            client.begin()
        else:
            self._idle.append(client)

    def later(self, delay_s: float, client: Client) -> None:
        heappush(self._timers, (time.perf_counter() + delay_s, next(self._order), client))

    def begin_to_watch(self, held: socket.socket, client: Client) -> None:
        self._clients[held.fileno()] = client
        self._epoll.register(held.fileno(), select.EPOLLIN)

    def watch(self, held: socket.socket, events: int) -> None:
        self._epoll.modify(held.fileno(), events)

    def forget(self, held: socket.socket) -> None:
        self._epoll.unregister(held.fileno())
        del self._clients[held.fileno()]

    def _start_clients(self) -> None:
        good = self.tallies["good"]
        if self.plan.rate is None:
            for _ in range(self.plan.clients):
                Client(self, good, self._requests).begin()
        if self.plan.damaged is not None:
            requests = requests_of([self.plan.damaged], self.plan)
            Client(self, self.tallies["damaged"], requests).begin()
        for _ in range(self.plan.resetting):
            ResettingClient(self, self.tallies["resetting"], self._requests).begin()

    def _turn_until(self, end: float) -> None:
        enough = self.plan.requests
        while (left := end - time.perf_counter()) > 0:
            if self._ending and not any(client.busy for client in self._clients.values()):
                return
            if enough is not None and self._answers >= enough and not self._ending:
                return
            self._turn(left)

    def _turn(self, longest_s: float) -> None:
        if self._timers:
            longest_s = min(longest_s, max(self._timers[0][0] - time.perf_counter(), 0))
        for number, events in self._epoll.poll(longest_s):
            client = self._clients.get(number)
            if client is not None:
                client.happened(events)
        while self._timers and self._timers[0][0] <= time.perf_counter():
            heappop(self._timers)[2].resume()

    def _send_at_rate(self, began: float, rate: float) -> None:
        for number in range(int(rate * self.plan.seconds)):
            due = began + number / rate
            self._turn_until(due)
            client = self._idle_client()
            if client is None:
                self.unsent += 1
                continue
            self.late_ms.append((time.perf_counter() - due) * 1000)
            client.begin(due)
            self._turn(0)

    def _idle_client(self) -> Client | None:
        if self._idle:
            return self._idle.pop()
        if self._made == self.plan.clients:
            return None
        self._made += 1
        return Client(self, self.tallies["good"], self._requests)
