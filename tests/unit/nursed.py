"""A program for a nursery: does what its arguments say, in order."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from warp.startup import watch_parent


def main() -> None:
    what, *more = sys.argv[1:]
    if what == "tell":
        told = {"parent": os.getppid(), "session": os.getsid(0) == os.getpid()}
        Path(more[0]).write_text(json.dumps({**told, "said": more[1:], "word": os.environ["WORD"]}))
    elif what == "exit":
        sys.exit(int(more[0]))
    elif what == "raise":
        raise ValueError("as asked")
    elif what == "wait":
        gone = threading.Event()
        watch_parent(int(more[0]), gone.set, every=0.05)
        gone.wait()
