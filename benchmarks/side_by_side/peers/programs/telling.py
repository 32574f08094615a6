"""What a program tells whoever measures it.  Runs in every peer's environment."""

import json
import time


def ready() -> None:
    """Our start is over: what is spent from now on counts."""
    print(json.dumps({"ready": {"at": time.time(), "cpu": time.process_time()}}), flush=True)
