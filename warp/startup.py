"""How every process of ours begins and ends: settings, logs, exit codes, the first look at Redis.

What is wrong at the start ends the process at once, with one line that says what to do.  What goes
wrong later is waited for: a process that ran once needs no restart.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import structlog

from warp import host_lookup, logs
from warp.config import Settings, load
from warp.errors import ConfigError, WarpError

if TYPE_CHECKING:
    from warp.leases.redis import RedisLeaseStore

log = structlog.get_logger(__name__)

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
DIFFERENT: Final = 3  # done, and the two sides are not equal


def read_settings(config: Path | str | None, flags: Mapping[str, Any], *, process: str) -> Settings:
    """The settings of this process, with its logs set up accordingly."""
    settings = load(config, os.environ, flags)
    logs.configure(settings.logging, secrets=settings.secrets, process=process)
    return settings


def exit_code(body: Callable[[], int]) -> int:
    """Run a process's body; a mistake or a missing server becomes one line on stderr.

    What nobody foresaw goes through the log, which masks what its traceback holds (guarantee 10).
    """
    host_lookup.bound()
    try:
        return body()
    except ConfigError as error:
        sys.stderr.write(_one_line(error))
        return MISUSED
    except WarpError as error:
        sys.stderr.write(_one_line(error))
        return FAILED
    except Exception:
        if not structlog.is_configured():  # it would print to stdout, with the values of locals
            sys.stderr.write(logs.masked(traceback.format_exc()))
            return FAILED
        log.exception("process_broke", action="report it, with this line")
        return FAILED


def _thread_broke(broken: threading.ExceptHookArgs) -> None:
    thread = broken.thread.name if broken.thread else "?"
    if broken.exc_value is not None:
        log.error("thread_broke", thread=thread, exc_info=broken.exc_value)


def _one_line(error: WarpError) -> str:
    """Servers and drivers explain themselves over several lines."""
    return logs.masked(" ".join(str(error).split())) + "\n"


def open_ledger(settings: Settings, namespace: str | None = None) -> RedisLeaseStore:
    """The ledger, not connected yet."""
    # Late: the driver is a quarter of the start of a command that asks Redis nothing.
    from warp.leases.redis import RedisLeaseStore

    coordination = settings.coordination
    if coordination.redis_url is None:
        raise ConfigError(
            "missing; expected where Redis is: --redis URL, coordination.redis_url in the file, or "
            "CARTRIDGE_WARP_REDIS_URL",
            place="coordination.redis_url",
        )
    return RedisLeaseStore(
        coordination.redis_url,
        namespace or coordination.namespace,
        lease_ttl=coordination.lease_ttl,
    )


def new_process_id() -> str:
    """Never used again, so that the same host and pid in a later life is another owner."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def on_signals(first: Callable[[], None]) -> None:
    """SIGTERM or SIGINT: `first`, once.  Another one: out, whatever is unfinished.

    Nothing is lost by the second: leases expire, and a transaction is whole or not at all.
    From here on a thread that breaks tells so in the log too.
    """
    threading.excepthook = _thread_broke
    asked = False  # a plain flag, as all that `first` touches: we may interrupt a lock's holder

    def asked_to_stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(FAILED)
        asked = True
        first()

    signal.signal(signal.SIGTERM, asked_to_stop)
    signal.signal(signal.SIGINT, asked_to_stop)


def watch_parent(parent: int, gone: Callable[[], None], *, every: float = 0.5) -> None:
    """Call `gone` when the process that started this one is no more, even by kill -9.

    Not PDEATHSIG: it is Linux only, and fires when the parent's starting *thread* ends.
    """

    def watch() -> None:
        pause = threading.Event()
        while os.getppid() == parent:
            pause.wait(every)
        gone()

    threading.Thread(target=watch, name="watch parent", daemon=True).start()
