"""`cartridge-warp demo`, run as a person runs it: in a pipe, on a terminal, interrupted, killed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from warp.own_process import wait_until

pytestmark = pytest.mark.timeout(300)

# Fewer live changes than a person is shown: what is tested is how the demo ends.
FEW = ("--rows", "4000", "--changes-per-second", "40")
LIMIT = 240.0
# Characters, with their colours: a terminal hands over 4,096 at once, and looking at many more each
# time costs more than the demo.
WINDOW = 12_000
# A person's own settings must not lead the demo to their own databases.
FOREIGN = {
    "CARTRIDGE_WARP_SOURCE": "mongodb://127.0.0.1:1/",
    "CARTRIDGE_WARP_DESTINATION": "postgresql://127.0.0.1:1/",
    "CARTRIDGE_WARP_REDIS_URL": "redis://127.0.0.1:1/0",
}


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the demo puts its files; PostgreSQL, as `nobody`, must reach what lies in it."""
    directory = Path(tempfile.mkdtemp(prefix="demo-"))
    directory.chmod(0o755)
    yield directory
    for process in processes_of(directory):
        process.kill()
    shutil.rmtree(directory)


class Run:
    """A running demo whose words are collected as they come."""

    def __init__(self, place: Path, *arguments: str, code: str | None = None) -> None:
        start = ["-c", code] if code else ["-m", "commands.demo"]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *start, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **FOREIGN, "TMPDIR": str(place)},
        )
        self.said = ""
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def wait_for(self, words: str) -> None:
        assert wait_until(lambda: words in self.said or self.process.poll() is not None, LIMIT)
        assert words in self.said, self.said

    def end(self) -> tuple[int, str]:
        """(exit code, standard output)"""
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        code = self.process.wait(LIMIT)
        self._listener.join()
        self.process.stdout.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code, output


def processes_of(place: Path) -> list[psutil.Process]:
    """Whoever lives in this directory or was told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(
                str(place) in word for word in (process.cwd(), *process.cmdline())
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def nothing_left(place: Path) -> bool:
    return not list(place.iterdir()) and not processes_of(place)


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="kill -9")
def test_the_demo_kills_a_worker_and_finds_no_difference(place: Path) -> None:
    run = Run(place, *FEW, "--json")
    code, output = run.end()
    assert code == 0, run.said
    facts = json.loads(output)
    assert facts["differences"] == 0
    assert [table["table"] for table in facts["tables"]] == [
        *("airlines", "airports", "planes", "weather", "flights")
    ]
    assert all(table["source_rows"] == table["destination_rows"] for table in facts["tables"])
    assert sum(table["source_rows"] for table in facts["tables"]) > 12_000
    assert facts["changes"] > 0
    stream = next(t for t in facts["takeovers"] if t["unit"].startswith("stream:"))
    assert stream["from_owner"] != stream["to_owner"]
    assert stream["from_fence"] < stream["to_fence"]
    assert "kill -9 worker-" in run.said
    assert facts["replacement"] == "worker-3"
    assert re.search(r"worker-3 \(pid \d+\) started in place of worker-[12]\n", run.said)
    assert "worker-3 has joined the fleet" in run.said
    assert "\x1b" not in run.said  # plain lines in a pipe
    assert nothing_left(place)


@pytest.mark.parametrize(
    "moment",
    [
        "starting MongoDB",
        pytest.param("loading documents", marks=pytest.mark.soak),
        "two workers started",
        pytest.param("kill -9", marks=pytest.mark.soak),
    ],
)
def test_ctrl_c_at_any_moment_leaves_no_process_and_no_file(place: Path, moment: str) -> None:
    run = Run(place, *FEW)
    run.wait_for(moment)
    run.process.send_signal(signal.SIGINT)
    code, output = run.end()
    assert code == 130, run.said
    assert output == ""
    assert "Traceback" not in run.said
    assert nothing_left(place), (list(place.iterdir()), processes_of(place))


def test_killing_the_demo_itself_leaves_no_process_and_no_file(place: Path) -> None:
    run = Run(place, *FEW)
    run.wait_for("two workers started")
    assert not nothing_left(place)
    run.process.kill()
    run.end()
    assert wait_until(lambda: nothing_left(place), 30), (
        list(place.iterdir()),
        processes_of(place),
    )


def test_a_row_that_differs_ends_the_demo_with_exit_code_3(place: Path) -> None:
    run = Run(
        place,
        *("--rows", "500", "--no-keep"),
        code="""if True:
            from commands import demo
            demo.FOLLOW = 0.0
            compare = demo.compare
            def tampered(source, warehouse, schema, table, *rest):
                if table == "planes":
                    warehouse.execute("update nycflights.planes set engine = 'none' "
                                      "where ctid = (select min(ctid) from nycflights.planes)")
                return compare(source, warehouse, schema, table, *rest)
            demo.compare = tampered
            demo.demo()
        """,
    )
    code, output = run.end()
    assert code == 3, run.said
    assert "engine is" in output
    assert "1 differences" in output


def test_on_a_terminal_the_screen_lives_until_ctrl_c(place: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "commands.demo", *FEW],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TMPDIR": str(place), "TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = ""

    def read_until(words: str) -> None:
        nonlocal shown
        while words not in without_colours(shown[-WINDOW:]):
            shown += os.read(ours, 65536).decode(errors="replace")

    read_until("Ctrl-C ends the demo")
    text = without_colours(shown)
    for words in (
        "worker-1 running",
        "rows/s",
        "flights",
        "kill -9 worker-",
        "→ worker-",
        "worker-3 running",
    ):
        assert words in text, words
    assert "\x1b[?25l" in shown  # the cursor was hidden for the live screen
    url = re.search(r'psql "(postgresql://[^"]+)"', text)
    assert url is not None
    with psycopg.connect(url.group(1)) as connection:
        count = connection.execute("select count(*) from nycflights.flights").fetchone()
    assert count is not None
    assert count[0] > 0
    shown = ""
    read_until("lag")  # it goes on
    os.write(ours, b"\x03")
    while process.poll() is None:
        try:
            shown += os.read(ours, 65536).decode(errors="replace")
        except OSError:  # the terminal's last user is gone
            process.wait(LIMIT)
    os.close(ours)
    assert process.returncode == 0, shown
    assert "\x1b[?25h" in shown  # and the cursor is back
    assert nothing_left(place)


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
