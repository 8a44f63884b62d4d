"""What surrounds the supervised programs: home, port, configuration, console, leash."""

from __future__ import annotations

import configparser
import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from supervisor import loggers, supervisord

from app.settings import Settings
from app.supervisor import daemon
from app.supervisor.configuration import supervisor_configuration
from app.supervisor.console import Console, Selection, level_of
from app.supervisor.home import CannotServeError, check_port, hold_home
from app.supervisor.leash import PARENT
from app.supervisor.process import ProgramState, Supervisor
from app.supervisor.programs import LEASH, Program, programs
from app.supervisor.readiness import Readiness
from app.supervisor.serve import _if_possible, _Watch, serve
from tests.serving import short_folder, wait_for


@pytest.fixture
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        yield Settings(home=folder / "home")


def parsed(settings: Settings, *chosen: Program) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(supervisor_configuration(settings, chosen))
    return parser


class TestPrograms:
    def test_one_machine_runs_everything(self, settings: Settings) -> None:
        names = [program.name for program in programs(settings)]
        assert names == ["broker", "api", "engine", "worker-cpu", "worker-gpu"]

    def test_a_broker_or_workers_elsewhere_are_not_started_here(self, settings: Settings) -> None:
        elsewhere = settings.model_copy(update={"redis_url": SecretStr("redis://broker")})
        assert [program.name for program in programs(elsewhere, workers=False)] == ["api", "engine"]

    def test_every_program_is_on_the_leash(self, settings: Settings) -> None:
        assert all(program.command[: len(LEASH)] == LEASH for program in programs(settings))


class TestConfiguration:
    def test_it_says_what_to_run(self, settings: Settings) -> None:
        program = Program(name="api", command=("run me", "50%", "a'b"), stop_wait_s=7)
        section = dict(parsed(settings, program)["program:api"])
        assert shlex.split(section["command"].replace("%%", "%")) == ["run me", "50%", "a'b"]
        assert (section["stopwaitsecs"], section["autorestart"]) == ("7", "unexpected")
        assert section["exitcodes"] == str(os.EX_CONFIG)

    def test_what_others_need_stops_last(self, settings: Settings) -> None:
        first = Program(name="api", command=("a",), stop_wait_s=1)
        last = Program(name="broker", command=("b",), stop_wait_s=1, stops_last=True)
        configuration = parsed(settings, last, first)
        assert configuration["group:front"]["programs"] == "api"
        assert configuration["group:back"]["programs"] == "broker"
        # Supervisor stops the group with the highest priority first.
        assert int(configuration["group:front"]["priority"]) > int(configuration["group:back"]["priority"])


class TestHome:
    def test_it_is_made_for_its_owner_alone(self, settings: Settings) -> None:
        with hold_home(settings, "here"):
            assert settings.home_path.stat().st_mode & 0o777 == 0o700

    def test_one_server_at_a_time(self, settings: Settings) -> None:
        with hold_home(settings, "http://here"):
            with (
                pytest.raises(CannotServeError, match="already runs") as refused,
                hold_home(settings, "there"),
            ):
                pass
            assert f"process {os.getpid()}" in str(refused.value)
            assert "http://here" in str(refused.value)
        with hold_home(settings, "there"):
            pass

    def test_a_path_that_sockets_cannot_have_is_refused(self, tmp_path: Path) -> None:
        long = Settings(home=tmp_path / ("x" * 100))
        with pytest.raises(CannotServeError, match="too long"), hold_home(long, ""):
            pass
        assert not long.home_path.exists()

    def test_a_home_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with (
            pytest.raises(CannotServeError, match="cannot use"),
            hold_home(Settings(home=tmp_path / "file"), ""),
        ):
            pass

    def test_a_taken_port_is_refused_with_advice(self) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            with pytest.raises(CannotServeError, match=f"HARRIER_PORT={port + 1}"):
                check_port(Settings(port=port))
        check_port(Settings(port=port))

    def test_an_address_that_is_not_ours_is_refused(self) -> None:
        with pytest.raises(CannotServeError, match="cannot listen"):
            check_port(Settings(host="192.0.2.1"))


class TestConsole:
    def test_warnings_come_with_the_name_of_their_program(self, tmp_path: Path) -> None:
        (tmp_path / "api.log").write_text("NOW [error    ] from the day before\n")
        console = Console(tmp_path, ["api", "engine"])
        assert list(console.new_lines()) == []
        with (tmp_path / "api.log").open("a") as log:
            log.write("NOW [info     ] started\nNOW [warning  ] half a li")
            log.flush()
            assert list(console.new_lines()) == []
            log.write("ne\n")
        (tmp_path / "engine.log").write_bytes(b"NOW [error    ] bad \xff\r\n")
        assert list(console.new_lines()) == [
            "api    | NOW [warning  ] half a line",
            "engine | NOW [error    ] bad \ufffd",
        ]

    def test_a_rotated_log_is_followed(self, tmp_path: Path) -> None:
        log = tmp_path / "api.log"
        log.write_text("old\n")
        console = Console(tmp_path, ["api"])
        log.rename(tmp_path / "api.log.1")
        log.write_text("NOW [error    ] new, and longer than before\n")
        assert list(console.new_lines()) == ["api | NOW [error    ] new, and longer than before"]

    def test_the_end_of_a_log_is_told_once_and_without_what_was_said(self, tmp_path: Path) -> None:
        console = Console(tmp_path, ["api"])
        lines = [*(f"line {number}" for number in range(100)), "NOW [error    ] said", "NOW [info     ] last"]
        (tmp_path / "api.log").write_text("".join(f"{line}\n" for line in lines))
        assert list(console.new_lines()) == ["api | NOW [error    ] said"]
        end = [*(f"api | line {number}" for number in range(89, 100)), "api | NOW [info     ] last"]
        assert console.last_lines("api") == end
        assert console.last_lines("api") == []


class TestSelection:
    @pytest.mark.parametrize(
        ("lines", "taken"),
        [
            (["NOW [info     ] a", "NOW [debug    ] b", "# WARNING of another program"], []),
            (["NOW [warning  ] a", "NOW [error] b", "NOW [critical ] c"], [0, 1, 2]),
            (
                ["NOW [error    ] a", "Traceback", "  File x", "ValueError: y", "NOW [info     ] b"],
                [0, 1, 2, 3],
            ),
            (["NOW [warning  ] a", "", "worker: Warm shutdown"], [0]),
            (['{"event": "a", "level": "warning"}', '{"event": "b", "level": "info"}', "{not JSON"], [0]),
            (['{"event": "a"}', "[1, 2]", "  [error] without a time"], []),
        ],
    )
    def test_warnings_and_errors_of_ours_with_their_tracebacks(
        self, lines: list[str], taken: list[int]
    ) -> None:
        selection = Selection()
        assert [index for index, line in enumerate(lines) if selection.takes(line)] == taken

    def test_what_our_logging_writes_is_recognised(self) -> None:
        for as_json in (False, True):
            code = (
                "from app.logs import *; from app.settings import Settings;"
                f"configure_logging(Settings(log_json={as_json})); get_logger('a').warning('full', disk=1)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
            assert [level_of(line) for line in done.stderr.splitlines()] == ["warning"]


def engine_that_answers(*answers: bool) -> Program:
    """Return a program that answers so, and not at all afterwards."""
    told = iter(answers)
    return Program(
        name="engine",
        command=(),
        stop_wait_s=1,
        is_ready=lambda pid: next(told, False),
        must_answer=True,
    )


class TestReadiness:
    def program(self, name: str, ready: dict[int, threading.Event]) -> Program:
        return Program(name=name, command=(), stop_wait_s=1, is_ready=lambda pid: ready[pid].is_set())

    def test_each_process_is_told_of_once_when_it_is_ready(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.supervisor.readiness.LOOK_S", 0.01)
        ready = {pid: threading.Event() for pid in (1, 2)}
        readiness = Readiness([self.program("api", ready), self.program("engine", ready)])
        readiness.watch("api", 1)
        readiness.watch("engine", 2)
        assert readiness.waiting == ["api", "engine"]
        ready[1].set()
        assert wait_for(lambda: list(readiness.news()), 10) == ["api"]
        assert (list(readiness.news()), readiness.waiting) == ([], ["engine"])
        ready[2].set()
        assert wait_for(lambda: list(readiness.news()), 10) == ["engine"]

    def test_a_process_that_has_gone_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.supervisor.readiness.LOOK_S", 0.01)
        ready = {pid: threading.Event() for pid in (1, 2)}
        readiness = Readiness([self.program("api", ready)])
        readiness.watch("api", 1)
        readiness.watch("api", 2)
        ready[1].set()
        ready[2].set()
        assert wait_for(lambda: list(readiness.news()), 10) == ["api"]
        assert readiness.waiting == []

    def test_one_that_falls_silent_is_told_of_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        readiness = self.answering(monkeypatch, True, False, False, True, False, False, False, True)
        assert wait_for(lambda: list(readiness.silent()), 10) == [("engine", 1)]
        assert (list(readiness.news()), list(readiness.silent())) == (["engine"], [])

    def test_one_whose_place_another_has_taken_is_not_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        readiness = self.answering(monkeypatch, True, False, False, False)
        wait_for(lambda: not readiness._silent.empty(), 10)
        readiness.watch("engine", 2)
        assert list(readiness.silent()) == []

    def answering(self, monkeypatch: pytest.MonkeyPatch, *answers: bool) -> Readiness:
        """Watch an engine that answers so, and not at all afterwards."""
        for name in ("LOOK_S", "ASK_S"):
            monkeypatch.setattr(f"app.supervisor.readiness.{name}", 0.001)
        readiness = Readiness([engine_that_answers(*answers)])
        readiness.watch("engine", 1)
        return readiness

    def test_a_broker_is_ready_when_it_listens(self, settings: Settings) -> None:
        broker = programs(settings)[0]
        assert not broker.is_ready(1)
        settings.broker_socket.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(settings.broker_socket))
            listener.listen()
            assert broker.is_ready(1)

    def test_nothing_is_ready_before_it_runs(self, settings: Settings) -> None:
        assert not any(program.is_ready(1) for program in programs(settings))


class TestLeash:
    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [
            *LEASH,
            sys.executable,
            "-c",
            f"import os; print(os.environ['{PARENT}'] == str(os.getpid()))",
        ]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30
        )

    def test_it_becomes_the_command_and_names_itself_to_the_next(self) -> None:
        assert self.run(**{PARENT: str(os.getpid())}).stdout == "True\n"

    def test_a_parent_that_has_gone_already_is_noticed(self) -> None:
        gone = self.run(**{PARENT: "1"})
        assert gone.returncode == -signal.SIGKILL
        assert gone.stdout == ""


def sleeper(name: str, *, stops: bool = True) -> Program:
    deaf = "" if stops else "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    code = f"import signal, time; {deaf} print('up', flush=True); time.sleep(1000)"
    return Program(name=name, command=(*LEASH, sys.executable, "-c", code), stop_wait_s=1)


class TestSupervisor:
    def test_it_starts_restarts_and_stops(self, settings: Settings) -> None:
        with (
            hold_home(settings, ""),
            Supervisor(settings, [sleeper("a"), sleeper("deaf", stops=False)]) as it,
        ):
            states = wait_for(lambda: [state for state in it.states() if state.pid], 20)
            assert {state.name for state in states} <= {"a", "deaf"}
            wait_for(lambda: all(state.pid for state in it.states()) and it.states(), 20)
            first = {state.name: state.pid for state in it.states()}
            os.kill(first["a"], signal.SIGKILL)
            second = self.replaced(it, "a", first["a"])
            os.kill(second, signal.SIGSTOP)
            assert not it.end_hung("a", first["a"])
            assert it.end_hung("a", second)
            self.replaced(it, "a", second)
            last = [state.pid for state in it.states()]
        assert it.has_ended()
        assert [pid for pid in last if Path(f"/proc/{pid}").exists()] == []

    def replaced(self, it: Supervisor, name: str, pid: int) -> int:
        """Return the process that a program has instead of this one."""

        def look() -> int:
            now = {state.name: state.pid for state in it.states()}[name]
            return now if now != pid else 0

        return wait_for(look, 20)

    def test_what_a_setting_stopped_rests_until_it_is_started_again(self, settings: Settings) -> None:
        code = f"import time; time.sleep(1.3); raise SystemExit({os.EX_CONFIG})"
        ends = Program(name="ends", command=(*LEASH, sys.executable, "-c", code), stop_wait_s=1)
        with hold_home(settings, ""), Supervisor(settings, [ends]) as it:
            resting = wait_for(lambda: [each for each in it.states() if each.is_misconfigured], 20)
            it.start_again(resting[0])
            (again,) = it.states()
            assert (again.pid != 0, again.is_misconfigured) == (True, False)

    def test_before_it_runs_nothing_is_known(self, settings: Settings) -> None:
        with hold_home(settings, ""):
            assert Supervisor(settings, []).states() == ()

    def test_a_line_for_which_the_disk_has_no_room_is_left_out(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        logger = loggers.getLogger()
        loggers.handle_file(logger, "/dev/full", "%(message)s")
        monkeypatch.setattr(supervisord, "main", lambda: logger.info("a line"))
        monkeypatch.setattr(loggers.Handler, "handleError", loggers.Handler.handleError)
        daemon.main()
        for handler in logger.handlers:
            with suppress(OSError):
                handler.close()
        assert capfd.readouterr().err == ""


class TestServe:
    def test_what_cannot_be_said_stops_nothing(self) -> None:
        def full(line: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        _if_possible(full)("a line")

    def test_a_program_that_cannot_start_ends_everything_with_a_word(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = Program(
            name="api",
            command=(*LEASH, sys.executable, "-c", "raise SystemExit('no such luck')"),
            stop_wait_s=1,
        )
        monkeypatch.setattr("app.supervisor.serve.programs", lambda settings, workers: (broken,))
        monkeypatch.setattr("app.supervisor.configuration.START_RETRIES", 1)
        said: list[str] = []
        prepared: list[Settings] = []
        free = settings.model_copy(update={"port": _free_port()})
        assert serve(free, said.append, prepare=prepared.append) == 1
        assert prepared == [free]
        assert f"its programs write to {free.home_path / 'logs'}" in said[0]
        assert any("api cannot be started; its log is" in line for line in said)
        assert "api | no such luck" in said

    def test_a_setting_that_cannot_be_used_ends_everything_at_once(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line = "NOW [error    ] engine cannot start reason=HARRIER_DEVICE"
        code = f"import time; print({line!r}); time.sleep(1.3); raise SystemExit({os.EX_CONFIG})"
        command = (*LEASH, sys.executable, "-c", code)
        engine = Program(name="engine", command=command, stop_wait_s=1, is_ready=lambda pid: False)
        monkeypatch.setattr("app.supervisor.serve.programs", lambda settings, workers: (engine,))
        said: list[str] = []
        free = settings.model_copy(update={"port": _free_port()})
        assert serve(free, said.append, prepare=lambda settings: None) == os.EX_CONFIG
        assert said[1:] == [
            f"engine | {line}",
            "The program engine cannot be started with this setting; everything ends.",
        ]

    def test_an_open_server_goes_on_and_tries_again(self, settings: Settings) -> None:
        class Resting(Supervisor):
            started: list[ProgramState] = []

            def states(self) -> tuple[ProgramState, ...]:
                return (ProgramState("front", "engine", 0, gave_up=False, is_misconfigured=True),)

            def start_again(self, program: ProgramState) -> None:
                self.started.append(program)

            def ask_to_stop(self) -> None:
                pass

            def has_ended(self, *, within_s: float = 0.0) -> bool:
                return within_s > 0

        (settings.home_path / "run").mkdir(parents=True)
        chosen = [Program(name="engine", command=("engine",), stop_wait_s=1)]
        supervisor = Resting(settings, chosen)
        watch = _Watch(settings, supervisor, chosen, print, began=0.0)
        watch._is_open = True
        stop = threading.Event()
        threading.Timer(0.5, stop.set).start()
        assert watch.run(stop) == 0
        assert supervisor.started

    @pytest.mark.parametrize(
        ("status", "body", "missing"),
        [
            (200, {"status": "ready", "checks": {"engine": "ok"}}, []),
            (503, {"status": "not_ready", "checks": {"engine": "it starts"}}, ["engine: it starts"]),
            (500, {"status": 500, "code": "internal"}, ["the API, which answers /readyz with status 500"]),
        ],
    )
    def test_whatever_readyz_says_it_goes_on(
        self,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        status: int,
        body: dict[str, object],
        missing: list[str],
    ) -> None:
        monkeypatch.setattr("app.supervisor.serve.ask_api", lambda settings, path: (status, json.dumps(body)))
        (settings.home_path / "run").mkdir(parents=True)
        chosen = [Program(name="api", command=("api",), stop_wait_s=1)]
        watch = _Watch(settings, Supervisor(settings, chosen), chosen, print, began=0.0)
        assert watch._refused() == missing

    def test_a_program_that_fell_silent_is_ended_with_a_word(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.supervisor.readiness.ASK_S", 0.001)
        (settings.home_path / "run").mkdir(parents=True)
        engine = engine_that_answers(True)
        supervisor, said = Supervisor(settings, [engine]), list[str]()
        ended: list[tuple[str, int]] = []

        def end(name: str, pid: int) -> bool:
            ended.append((name, pid))
            return True

        monkeypatch.setattr(supervisor, "end_hung", end)
        watch = _Watch(settings, supervisor, [engine], said.append, began=0.0)
        watch._readiness.watch("engine", 7)

        def look() -> list[str]:
            watch._end_silent()
            return said

        wait_for(look, 10)
        assert ended == [("engine", 7)]
        assert said == ["The program engine (process 7) answered nothing any more and was killed."]

    def test_nothing_is_prepared_for_a_port_that_is_taken(self, settings: Settings) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = settings.model_copy(update={"port": holder.getsockname()[1]})
            prepared: list[Settings] = []
            with pytest.raises(CannotServeError):
                serve(taken, print, prepare=prepared.append)
        assert prepared == []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
