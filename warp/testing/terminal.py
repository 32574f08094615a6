"""A real terminal for tests to type into and read from: tmux, with a server of its own."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType

from warp.own_process import wait_until
from warp.testing.debian import tmux


class Terminal:
    """One program in a terminal of a given size; `close` ends it and the terminal."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._program = tmux()
        self._socket = f"warp-{os.getpid()}-{secrets.token_hex(4)}"
        # `-f /dev/null`: nobody's own settings.  The pane stays when the program ends, so that
        # what it said last can be read.
        shown = shlex.join(command)
        self._tmux(
            *("-f", os.devnull, "new-session", "-d", "-x", str(columns), "-y", str(lines)),
            shown,
            *(";", "set-option", "remain-on-exit", "on", ";", "set-option", "status", "off"),
            environment={**self._program.environment, **(environment or {})},
        )

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        """Keys as tmux names them: `q`, `Enter`, `Escape`, `Tab`."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def until(self, *parts: str, limit: float = 60.0) -> str:
        """The screen once all parts stand on it."""
        seen = ""

        def there() -> bool:
            nonlocal seen
            seen = self.screen()
            return all(part in seen for part in parts)

        assert wait_until(there, limit, pause=0.1), f"waited for {parts} on:\n{seen}"
        return seen

    def ended(self) -> bool:
        return self._tmux("display-message", "-p", "#{pane_dead}").strip() == "1"

    def close(self) -> None:
        self._tmux("kill-server")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _tmux(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [self._program.path, "-L", self._socket, *arguments],
            env=environment or self._program.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout
