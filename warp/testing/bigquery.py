"""A BigQuery that runs on this machine: local-bigquery on DuckDB, behind the real clients.

    with BigQueryEmulator() as bigquery:
        bigquery.client().query_and_wait("SELECT 1")

It needs Python 3.13, and so an environment of its own, which is built once from pinned packages
and kept below `~/.cache/cartridge-warp/bigquery`.  What it cannot show of the real service is said
in docs/destinations/bigquery.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from warp.errors import StartFailed
from warp.own_process import LOCALHOST, LocalServer, free_port

if TYPE_CHECKING:
    from google.cloud import bigquery

LAUNCHER: Final = Path(__file__).with_name("bigquery_launcher.py")
PINS: Final = Path(__file__).with_name("bigquery_pins.txt")
PLAIN: Final = "plain-{}"
"""A project of this name has tables without history, which the emulator is quicker with."""

_BUILD_LIMIT: Final = 600.0  # seconds
_MISSING: Final = (
    "expected Python 3.13, which the BigQuery emulator needs, as `python3.13` on PATH or in pyenv; "
    "found none; install it (`pyenv install 3.13`, `uv python install 3.13`), or name a running "
    "emulator in CARTRIDGE_WARP_TEST_BIGQUERY"
)


class PythonMissing(StartFailed):
    """There is no Python of the version that the emulator needs."""


class BigQueryEmulator(LocalServer):
    """The emulator, empty, with REST on one port and gRPC (Storage Read and Write) on another."""

    name: ClassVar[str] = "bigquery"

    def __init__(self, project: str = "warehouse") -> None:
        super().__init__()
        self.project = project
        self.grpc_port = 0
        self._python = Path()

    @property
    def url(self) -> str:
        """Where REST is spoken: what `emulator_host` of a connector is set to."""
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def grpc(self) -> str:
        """host:port of the Storage Read and Write APIs, without TLS."""
        return f"{LOCALHOST}:{self.grpc_port}"

    def client(self) -> bigquery.Client:
        return client_of(self.url, self.project)

    def _prepare(self) -> None:
        self._python = environment()
        (self.directory / "data").mkdir()

    def _command(self) -> Sequence[str]:
        if not self.grpc_port:
            self.grpc_port = free_port()
        return [
            *(str(self._python), str(LAUNCHER), "serve", "--host", LOCALHOST),
            *("--port", str(self.port), "--grpc-port", str(self.grpc_port)),
            *("--project", self.project, "--data-dir", str(self.directory / "data")),
        ]

    def _popen_options(self) -> Mapping[str, Any]:
        # DuckDB looks for its extensions below HOME; nothing of ours goes into the user's.
        return {"env": {**os.environ, "HOME": str(_home(self._python)), "PYTHONUNBUFFERED": "1"}}

    def _ready(self) -> bool:
        # Its own log: somebody else's server may answer on this port while ours still loses it.
        return "Uvicorn running on" in self.log_since_start()


def client_of(url: str, project: str) -> bigquery.Client:
    """The real client, talking to an emulator."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    return bigquery.Client(
        project,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": url},
    )


# --- its environment -----------------------------------------------------------------------------


def environment() -> Path:
    """The Python of the emulator's environment, built unless it is there.

    Several processes may ask at once: one builds, the others wait for it.
    """
    place = _place()
    if not _built(place):
        python = find_python()
        with _alone(place.parent / "lock"):
            if not _built(place):
                _build(place, python)
    return place / "bin/python"


def describe() -> str:
    """What the tests will use, or what is missing; builds nothing."""
    [pin] = [line for line in PINS.read_text().split() if line.startswith("local-bigquery==")]
    version = pin.partition("==")[2]
    if _built(_place()):
        return f"local-bigquery {version}"
    try:
        return f"local-bigquery {version}, to be built with {find_python()}"
    except PythonMissing as missing:
        return missing.message


def find_python() -> Path:
    """A Python 3.13 that runs; pyenv puts a `python3.13` on PATH that may refuse to."""
    candidates = [Path(found)] if (found := shutil.which("python3.13")) else []
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    candidates += sorted(versions.glob("3.13*/bin/python3.13"), reverse=True)
    for candidate in candidates:
        ran = subprocess.run([candidate, "--version"], capture_output=True, check=False)
        if ran.returncode == 0:
            return candidate
    raise PythonMissing(_MISSING)


def _place() -> Path:
    """One environment for each list of pins, so that a new list never meets an old environment."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    pins = hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]
    return cache / "cartridge-warp" / "bigquery" / pins


def _home(python: Path) -> Path:
    return python.parents[1] / "home"


def _built(place: Path) -> bool:
    return (place / "ready").exists()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        deadline = time.monotonic() + _BUILD_LIMIT
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StartFailed(
                        f"expected the emulator's environment within {_BUILD_LIMIT:.0f} s, found "
                        f"another process still building it; look who holds {lock}"
                    ) from None
            time.sleep(0.1)
        yield


def _build(place: Path, python: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)  # what an attempt that was killed has left
    own = place / "bin/python"
    steps: list[list[str]] = [
        [str(python), "-m", "venv", str(place)],
        [
            *(str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--prefer-binary", "--no-deps", "--requirement", str(PINS)),
        ],
        [str(own), str(LAUNCHER), "install"],
    ]
    for step in steps:
        home = _home(own)
        home.mkdir(parents=True, exist_ok=True)
        ran = subprocess.run(
            step,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_LIMIT,
            env={**os.environ, "HOME": str(home)} if step[-1] == "install" else None,
        )
        if ran.returncode != 0:
            raise StartFailed(
                f"expected `{' '.join(step)}` to build the emulator's environment, found:\n"
                f"{ran.stdout}{ran.stderr}"
            )
    (place / "ready").touch()
