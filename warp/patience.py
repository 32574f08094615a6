"""Questions that a server may think about for minutes; meanwhile the lease is kept."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Final, TypeVar

from warp.interfaces import Hold

Answer = TypeVar("Answer")

LOOK_EVERY: Final = 1.0  # seconds between two looks at the lease


def patiently(hold: Hold, *questions: Callable[[], Answer]) -> list[Answer]:
    """The answers to questions that are asked at once, in their order.

    Each must be for a connection of its own.  LeaseLost as soon as the lease is; what is asked
    then still comes to its end.
    """
    with ThreadPoolExecutor(len(questions), thread_name_prefix="comparing") as threads:
        asked = [threads.submit(question) for question in questions]
        while wait(asked, LOOK_EVERY, FIRST_EXCEPTION).not_done:
            if any(one.done() and one.exception() is not None for one in asked):
                break
            hold.check()
        return [one.result() for one in asked]
