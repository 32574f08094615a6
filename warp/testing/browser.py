"""A headless browser for tests to look through, spoken to over two pipes.

Chromium's own protocol, without a driver: a command is JSON and a NUL, and so is its answer.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from warp.own_process import wait_until
from warp.testing.debian import chromium

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--no-first-run", "--remote-debugging-pipe"),
)

# The browser reads commands from 3 and writes answers to 4, and ends when 3 is closed.
_ON_3_AND_4 = 'exec "$0" "$@" 3</dev/fd/{} 4>/dev/fd/{}'


class Browser:
    """One page.  `requests` are the addresses it asked for, `complaints` what went wrong on it."""

    def __init__(self, *, width: int = 1280, height: int = 900) -> None:
        program = chromium()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="warp-browser-")
        self._number = 0
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        size, profile = f"--window-size={width},{height}", f"--user-data-dir={self._folder.name}"
        self._process = subprocess.Popen(
            [
                "sh",
                "-c",
                _ON_3_AND_4.format(to_read, to_write),
                program.path,
                *_FLAGS,
                size,
                profile,
            ],
            env=program.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(to_read, to_write),
        )
        os.close(to_read)
        os.close(to_write)
        self._answers: IO[bytes] = os.fdopen(self._from, "rb", buffering=0)
        self._left = b""
        self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of some JavaScript on the page."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, limit: float = 60.0) -> None:
        assert wait_until(lambda: bool(self.evaluate(expression)), limit, pause=0.1), (
            f"waited for {expression}; the page says {self.evaluate('document.body.innerText')!r}"
        )

    def screenshot(self, path: Path) -> None:
        answer = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def dark(self) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
        self._ask("Emulation.setEmulatedMedia", features=scheme)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._answers.close()
        os.close(self._to)
        self._folder.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while True:
            told = self._read()
            if told.get("id") == self._number:
                assert "error" not in told, told
                answer: dict[str, Any] = told["result"]
                return answer
            self._note(told)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            part = self._answers.read(1 << 16)
            assert part, f"the browser has ended with {self._process.wait()}"
            self._left += part
        one, _, self._left = self._left.partition(b"\0")
        told: dict[str, Any] = json.loads(one)
        return told

    def _note(self, told: dict[str, Any]) -> None:
        parameters = told.get("params", {})
        match told.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded":
                entry = parameters["entry"]
                if entry["level"] in ("error", "warning"):
                    self.complaints.append(entry["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"]))
