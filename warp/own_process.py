"""A process of our own: in a directory of its own, and neither outlives this process.

Used for the embedded Redis, for the demo and for the tests.  The promise "no process and no file
left" must hold when this process is killed with -9, when no code of ours runs any more.  So two
small shells watch over each process:

* the *caretaker* holds the reading end of a pipe whose writing end only we have.  When the pipe
  closes, for whatever reason, it kills the one it was last told of (its pid, and those of
  paused children) and removes the directory;
* the *gate* becomes the process by `exec`, but only once the caretaker has been told its pid, so
  there is no moment at which something runs that nobody would end.

Not PDEATHSIG: it fires when the *thread* that started the server ends, which kills servers
started side by side in a thread pool, and it needs `preexec_fn`, which is unsafe with threads.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self

import psutil

from warp.errors import StartFailed

LOCALHOST: Final = "127.0.0.1"
START_LIMIT: Final = 60.0  # seconds; generous, since a busy machine is not a broken server
STOP_LIMIT: Final = 30.0
LOG: Final = "process.log"

# Below Linux's ephemeral range (32768-60999), so that nobody's outgoing connection takes the port
# of a server that is just being restarted.
_PORTS: Final = range(18_000, 32_000)
_PORT_TAKEN: Final = ("address already in use", "socketexception", "failed listening on port")

_CARETAKER: Final = """
trap '' INT TERM HUP
pids=
while read -r line; do pids=$line; done
if [ -n "$pids" ]; then
    pid=${pids%% *}
    kill -"$2" "$pid"; kill -CONT $pids
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" || break; sleep 0.2; done
    kill -KILL "$pid"; kill -KILL -- -"$pid"
fi
while [ -e "$1" ]; do rm -rf -- "$1" || sleep 0.1; done
"""
_GATE: Final = 'read -r _ && exec "$@"'


def free_port() -> int:
    """A port nobody listens on now.  Somebody may the next moment: be ready to ask again."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOCALHOST, port))
            return port
    raise StartFailed(
        f"expected a free port among {_PORTS.start}-{_PORTS.stop}, found 200 taken in a row; "
        "stop servers that are not needed"
    )


def wait_until(condition: Callable[[], bool], limit: float, *, pause: float = 0.02) -> bool:
    """Whether the condition became true within `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


class Running(Protocol):
    """What is used of `subprocess.Popen`, whoever started the process."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class OwnProcess(ABC):
    """A child process that, with all its children, does not outlive us, nor does its directory."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # What the caretaker sends when we are gone; a server that must tidy up gets a gentler one.
    orphan_signal: ClassVar[str] = "KILL"

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._process: Running | None = None
        self._caretaker: subprocess.Popen[bytes] | None = None
        self._leash = -1  # our end of the caretaker's pipe
        self._log_start = 0  # where the log of the present start begins

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The argv of the next start."""

    def _prepare(self) -> None:  # noqa: B027 - a step, not a duty
        """Called once, when the directory is new."""

    def _tidy(self) -> None:  # noqa: B027 - a step, not a duty
        """Remove what the process keeps outside its directory."""

    def _popen_options(self) -> Mapping[str, Any]:
        return {}

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise StartFailed(f"{self.name} has no directory before start() and after close()")
        return self._directory

    @property
    def pid(self) -> int:
        if self._process is None:
            raise StartFailed(f"{self.name} does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the process; it need not be ready for anything yet."""
        if self.running:
            return self
        if self._directory is None:
            self._settle_in()
        self._spawn()
        return self

    def stop(self, limit: float = STOP_LIMIT) -> None:
        """Ask the process to end, in its own way, and wait.  Its files stay for a restart."""
        if self._process is None:
            return
        self._signal_all(signal.SIGCONT)
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(limit)
        except subprocess.TimeoutExpired as error:
            complaint = self._complaint(f"still runs {limit:.0f} s after {self.stop_signal.name}")
            self.kill9()
            raise StartFailed(complaint) from error
        self._gone()

    def kill9(self) -> None:
        """End it and all its children at once, as a power cut would."""
        if self._process is None:
            return
        _kill_family(self._process, self.name)
        self._gone()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        self._signal_all(signal.SIGSTOP)
        # A frozen child cannot notice that its parent died: the caretaker must wake each.
        self._tell_caretaker(" ".join(str(member.pid) for member in self._family()))

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)
        self._tell_caretaker(str(self.pid))

    def close(self) -> None:
        """End it and remove everything it left behind."""
        self.kill9()
        if self._directory is not None:
            self._tidy()
            shutil.rmtree(self._directory)
            self._directory = None
        if self._caretaker is not None:
            os.close(self._leash)
            self._caretaker.wait()
            self._caretaker = None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines it said."""
        return "\n".join(self.log_since_start().splitlines()[-lines:]) or "(nothing)"

    def log_since_start(self) -> str:
        with (self.directory / LOG).open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _settle_in(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix=f"cartridge-warp-{self.name}-"))
        reading_end, self._leash = os.pipe()
        self._caretaker = subprocess.Popen(
            ["/bin/sh", "-c", _CARETAKER, "caretaker", str(self._directory), self.orphan_signal],
            stdin=reading_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        os.close(reading_end)
        self._prepare()

    def _spawn(self) -> None:
        reading_end, gate = os.pipe()
        try:
            with (self.directory / LOG).open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    ["/bin/sh", "-c", _GATE, "gate", *self._command()],
                    stdin=reading_end,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C on our terminal is for us; we end our processes ourselves, in order.
                    start_new_session=True,
                    cwd=self.directory,
                    **self._popen_options(),
                )
            self._tell_caretaker(str(self._process.pid))
            os.write(gate, b"go\n")
        finally:
            os.close(reading_end)
            os.close(gate)

    def _complaint(self, what: str) -> str:
        return f"{self.name} {what}; its last words:\n{self.log_tail()}"

    def _gone(self) -> None:
        self._process = None
        self._tell_caretaker("")

    def _tell_caretaker(self, line: str) -> None:
        os.write(self._leash, line.encode() + b"\n")

    def _family(self) -> list[psutil.Process]:
        return _family_of(self.pid)

    def _signal_all(self, number: signal.Signals) -> None:
        for member in self._family():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(member.pid, number)


class LocalServer(OwnProcess):
    """A server on a loopback port; `start` returns when it answers.

    Subclasses say which command to run and when it is ready.
    """

    def __init__(self) -> None:
        super().__init__()
        self.port = 0

    @abstractmethod
    def _ready(self) -> bool:
        """Does this very server (not another one on the same port) answer?"""

    def _started(self) -> None:
        """Called after each start, once the server is ready."""

    @property
    @abstractmethod
    def url(self) -> str: ...

    def start(self, limit: float = START_LIMIT) -> Self:
        """Start and wait until the server answers.  The first start chooses the port."""
        if self.running:
            return self
        new = self._directory is None
        try:
            if new:
                self._settle_in()
            for _ in range(5):
                if new:
                    self.port = free_port()
                self._spawn()
                if self._wait_ready(limit):
                    break
                if not new or not self._lost_the_port():
                    raise StartFailed(self._complaint("ended before it was ready"))
            else:
                raise StartFailed(self._complaint("lost five ports in a row to other processes"))
            self._started()
        except BaseException:
            if new:
                self.close()
            raise
        return self

    def restart(self, *, hard: bool = False) -> None:
        """Stop (or kill -9) and start again on the same port with the same data."""
        if hard:
            self.kill9()
        else:
            self.stop()
        self.start()

    def _wait_ready(self, limit: float) -> bool:
        """Ready: True.  Ended before it was: False.  Neither within the limit: StartFailed."""
        outcome = [False]

        def settled() -> bool:
            outcome[0] = self.running and self._ready()
            return outcome[0] or not self.running

        if not wait_until(settled, limit):
            complaint = self._complaint(f"was not ready after {limit:.0f} s")
            self.kill9()
            raise StartFailed(complaint)
        if not outcome[0]:
            self._gone()
        return outcome[0]

    def _lost_the_port(self) -> bool:
        said = self.log_tail().lower()
        return any(words in said for words in _PORT_TAKEN)


def run_to_the_end(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program that makes files.  An interruption ends it and all that it has started, so that
    nobody is at these files when they are removed."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as in `OwnProcess`
        **options,
    ) as process:
        try:
            said, complained = process.communicate()
        except BaseException:
            _kill_family(process, command[0])
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def _kill_family(leader: Running, name: str) -> None:
    """Of a session's leader."""
    family = _family_of(leader.pid)
    # The group too: it also holds the children of a leader that is dead already.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    leader.wait()
    if not wait_until(lambda: not any(map(_alive, family)), STOP_LIMIT):
        raise StartFailed(f"{name} survived kill -9 for {STOP_LIMIT:.0f} s")


def _family_of(pid: int) -> list[psutil.Process]:
    """The leader first, so that it starts no more children while we signal them."""
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _alive(process: psutil.Process) -> bool:
    # A container's first process may be slow to collect the dead, or never do it.
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
