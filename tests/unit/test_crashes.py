"""A bug ends a process with a line of the log, in which no password stands (guarantee 10)."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import sys, threading
    from warp import startup
    PASSWORD = "hunter2-geheim"
    URL = f"mongodb://reader:{PASSWORD}@127.0.0.1:1/shop"

    def body():
        flags = {"source": URL, "destination": f"postgresql://u:{PASSWORD}@127.0.0.1:1/w",
                 "schema": ("shop",), "mode": "single"}
        if "unread" not in sys.argv:
            startup.read_settings(None, flags, process="worker")
            startup.on_signals(lambda: None)
        if "thread" in sys.argv:
            thread = threading.Thread(target=breaks, name="a thread")
            thread.start()
            thread.join()
            return 7
        breaks()

    def breaks():
        told = PASSWORD if "unread" not in sys.argv else URL  # bare, where it is known to be one
        raise ZeroDivisionError(f"cannot divide {told}")

    sys.exit(startup.exit_code(body))
"""


@pytest.mark.parametrize(
    ("where", "code", "word"),
    [("body", 1, "process_broke"), ("thread", 7, "thread_broke"), ("unread", 1, "Traceback")],
)
def test_a_bug_is_told_with_its_traceback_and_without_a_password(
    where: str, code: int, word: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), where],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code
    assert word in done.stderr
    assert "ZeroDivisionError: cannot divide" in done.stderr
    assert "geheim" not in done.stderr
    assert done.stdout == ""
