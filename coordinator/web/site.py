"""The paths of the page: `/`, its script and style, and `/events`, the pictures as they are seen.

Everything it needs is served here, without cookies, without a build; it asks for nothing but what
it shows, and the browser is told to let it do no more.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from importlib import resources
from typing import Any, Final

from coordinator.web.looking import EVERY, Lookout, Sight
from coordinator.web.told import told
from warp.fleet.view import FleetView

MOST_WATCHERS: Final = 20
PATIENCE: Final = 10.0  # seconds that a browser may take no bytes
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """The page of one process that can look at the fleet."""

    def __init__(
        self,
        look: Callable[[], FleetView],
        *,
        about: Callable[[], Mapping[str, Any]] = dict,
        every: float = EVERY,
    ) -> None:
        """`about` adds what the serving process knows of itself."""
        self.lookout = Lookout(look, every=every)
        self._about = about
        folder = resources.files("coordinator.web")
        self._files = {
            path: ((folder / name).read_bytes(), content_type)
            for path, (name, content_type) in _FILES.items()
        }

    def answers(self) -> Mapping[str, Answer]:
        """By path, as `MetricsServer` takes them."""
        return {**dict.fromkeys(self._files, self._file), "/events": self._events}

    def close(self) -> None:
        self.lookout.close()

    def _file(self, request: BaseHTTPRequestHandler) -> None:
        body, content_type = self._files[request.path.partition("?")[0]]
        _begin(request, 200, content_type, len(body))
        request.wfile.write(body)

    def _events(self, request: BaseHTTPRequestHandler) -> None:
        """Server-sent events until the browser goes away."""
        if not self.lookout.enter(MOST_WATCHERS):
            body = b"too many watch; try again later\n"
            _begin(request, 503, "text/plain; charset=utf-8", len(body))
            request.wfile.write(body)
            return
        try:
            request.connection.settimeout(PATIENCE)
            _begin(request, 200, "text/event-stream; charset=utf-8", None)
            self._tell(request)
        finally:
            self.lookout.leave()

    def _tell(self, request: BaseHTTPRequestHandler) -> None:
        number = 0
        # A browser that went away, or takes nothing for too long, is no news.
        with contextlib.suppress(ConnectionError, TimeoutError):
            while not self.lookout.closed:
                sight = self.lookout.after(number, PATIENCE)
                if sight is None:
                    request.wfile.write(b": still here\n\n")
                else:
                    number = sight.number
                    request.wfile.write(self._event(sight))

    def _event(self, sight: Sight) -> bytes:
        """JSON has no line break in it, so it cannot end an event early."""
        if sight.trouble or sight.picture is None:
            return b"event: trouble\ndata: " + _json({"error": sight.trouble}) + b"\n\n"
        return b"data: " + _json({**told(sight.picture), **self._about()}) + b"\n\n"


def _begin(
    request: BaseHTTPRequestHandler, status: int, content_type: str, length: int | None
) -> None:
    request.send_response(status)
    request.send_header("Content-Type", content_type)
    for name, value in HEADERS.items():
        request.send_header(name, value)
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()


def _json(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, ensure_ascii=True, allow_nan=False).encode()
