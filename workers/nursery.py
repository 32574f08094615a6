"""Starts processes by `fork` from one that has imported everything and has no threads.

A fresh interpreter spends 1.2 s of CPU on imports before its first line of work, a fork a few
milliseconds, and it shares the memory [measured].  But a fork of a process with threads may hang
for ever on a lock that another thread held, and ours have threads.  So a command forks its nursery
before its first thread, and the nursery, which never has one, forks whatever is asked for later.

A process asked for is a child of the nursery.  When the one who asked is gone, even by kill -9,
the nursery ends, and the children see that by `startup.watch_parent`.  When the nursery is killed,
its children end likewise, and a fresh interpreter takes its place.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, Self

import structlog

log = structlog.get_logger(__name__)

PARENT: Final = "{nursery}"
"""In the arguments of a process: the pid of its parent, which is the nursery."""

LOST: Final = 254
"""The exit code of a process whose end nobody saw, because its nursery was gone."""

_OURS_TO_END: Final = (signal.SIGTERM, signal.SIGINT)
_LISTEN: Final = 0.02  # seconds


class Nursery:
    """Starts processes, from any thread; to be made before the first thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # A fork without exec is not safe on macOS, whatever threads we have.
        forks = sys.platform == "linux" and threading.active_count() == 1
        self._line = _forked() if forks else _fresh()

    @classmethod
    def of_its_own(cls, modules: Sequence[str], environment: Mapping[str, str]) -> Self:
        """A fresh interpreter that imports these modules before it forks."""
        made = cls.__new__(cls)
        made._lock = threading.RLock()
        made._line = _fresh(modules, environment)
        return made

    @property
    def pid(self) -> int:
        return self._line.pid

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Born:
        """`python -m module arguments…` with this environment, in a session of its own."""
        with self._lock:
            self._line.listen()
            if self._line.gone:
                log.error("nursery_lost", pid=self._line.pid, action="a fresh one takes its place")
                self._line.close()
                self._line = _fresh()
            order = {
                "module": module,
                "arguments": list(arguments),
                "environment": dict(environment),
            }
            return self._line.ask_for(order)

    def close(self) -> None:
        """End the nursery; whom it started sees its parent gone."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Born:
    """A process that a nursery started, with the methods of `subprocess.Popen`."""

    def __init__(self, line: _Line, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._line = line

    def poll(self) -> int | None:
        if self.returncode is None:
            self._line.listen()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            code = self.poll()
            if code is not None:
                return code
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0.0)
            self._line.listen(_LISTEN)

    def send_signal(self, number: int) -> None:
        """Through its parent, who alone knows that the pid is not somebody else's by now."""
        if self.poll() is None:
            self._line.say({"signal": int(number), "pid": self.pid})

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Line:
    """Our end of the line to one nursery."""

    def __init__(
        self, channel: socket.socket, pid: int, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.pid = pid
        self.gone = False
        self._channel = channel
        self._process = process  # None: forked
        self._lock = threading.RLock()
        self._living: dict[int, Born] = {}
        self._heard = b""

    def ask_for(self, order: Mapping[str, Any]) -> Born:
        with self._lock:
            self.say(order)
            while True:
                for born in self._read(None):
                    return born  # the only one: each is asked for and waited for in turn
                if self.gone:
                    born = Born(self, -1)
                    born.returncode = LOST
                    return born

    def say(self, words: Mapping[str, Any]) -> None:
        with self._lock, contextlib.suppress(OSError):  # gone: `listen` will tell
            self._channel.sendall(json.dumps(words).encode() + b"\n")

    def listen(self, limit: float = 0.0) -> None:
        """Note who has ended."""
        with self._lock:
            self._read(limit)

    def _read(self, limit: float | None) -> list[Born]:
        """Who was started; who has ended is noted here, and may be the same, told in one breath."""
        if self.gone or not select.select([self._channel], [], [], limit)[0]:
            return []
        try:
            said = self._channel.recv(1 << 16)
        except OSError:
            said = b""
        if not said:
            self.gone = True
            for born in self._living.values():
                born.returncode = LOST
            self._living.clear()
            return []
        *lines, self._heard = (self._heard + said).split(b"\n")
        started = []
        for told in map(json.loads, lines):
            if "ended" in told:
                self._living.pop(told["ended"]).returncode = told["code"]
            else:
                born = self._living[told["started"]] = Born(self, told["started"])
                started.append(born)
        return started

    def close(self) -> None:
        with self._lock:
            self.gone = True
            self._channel.close()
        if self._process is not None:
            self._process.wait()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


def _forked() -> _Line:
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _serve(theirs)
    theirs.close()
    return _Line(ours, pid)


def _fresh(modules: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> _Line:
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.nursery", str(number), *modules],
            env=environment,
            pass_fds=[number],
            start_new_session=True,
        )
    return _Line(ours, process.pid, process)


# --- the nursery's own side ----------------------------------------------------------------------


def _serve(channel: socket.socket) -> NoReturn:
    """Start what is asked for and tell who ended, until nobody asks any more."""
    try:
        _Serving(channel).run()
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        os._exit(0)


class _Serving:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._living: set[int] = set()
        self._bell, self._ringer = socket.socketpair()

    def run(self) -> None:
        # Whoever ends all processes of a container or a service at once must not end us before
        # the one who asks has ended its children in order; then we go too.
        for number in _OURS_TO_END:
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(PermissionError):  # a fresh one leads its session already
            os.setsid()
        self._ringer.setblocking(False)
        self._bell.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._ringer.fileno(), warn_on_full_buffer=False)
        gc.freeze()  # or the first look for garbage would copy every page we share
        heard = b""
        while True:
            ready, _, _ = select.select([self._channel, self._bell], [], [])
            if self._bell in ready:
                with contextlib.suppress(BlockingIOError):
                    self._bell.recv(4096)
            if self._channel in ready:
                said = self._channel.recv(1 << 16)
                if not said:
                    return
                *lines, heard = (heard + said).split(b"\n")
                for order in map(json.loads, lines):
                    self._obey(order)
            self._tell_of_the_dead()

    def _obey(self, order: Mapping[str, Any]) -> None:
        if "signal" in order:
            if order["pid"] in self._living:
                os.kill(order["pid"], order["signal"])
            return
        parent = os.getpid()
        # A signal for the child must not meet our way of ignoring it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _OURS_TO_END)
        pid = os.fork()
        if pid == 0:
            self._channel.close()
            self._bell.close()
            signal.set_wakeup_fd(-1)
            self._ringer.close()
            _live(order, parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS_TO_END)
        self._living.add(pid)
        self._tell({"started": pid})

    def _tell_of_the_dead(self) -> None:
        while self._living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._living.discard(pid)
            self._tell({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _tell(self, words: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the next read tells that nobody asks
            self._channel.sendall(json.dumps(words).encode() + b"\n")


def _live(order: Mapping[str, Any], parent: int) -> NoReturn:
    """Be the process that was asked for.

    It ends by `os._exit`: what is registered for the end of an interpreter is our ancestor's, who
    still needs the files that it would remove.
    """
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS_TO_END)
        os.environ.clear()
        os.environ.update(order["environment"])
        arguments = [str(parent) if a == PARENT else a for a in order["arguments"]]
        sys.argv = [order["module"], *arguments]
        importlib.import_module(order["module"]).main()
        code = 0
    except SystemExit as end:
        code = _exit_code(end)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    sys.stderr.write(f"{end.code}\n")
    return 1


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    _serve(socket.socket(fileno=int(sys.argv[1])))
