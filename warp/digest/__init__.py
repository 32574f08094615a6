"""Digests of rows and key ranges: what two databases must agree on to be equal.  Pure.

`docs/digest.md` specifies them, so that another program can compute the same; whatever changes here
changes there, and RULE grows.
"""

from __future__ import annotations

from typing import Final

RULE: Final = 1
"""The version of the rules of `docs/digest.md` that this code follows."""
