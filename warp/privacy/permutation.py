"""A keyed permutation of the numbers of one form.  Pure.

A form is a list of digits, each with its own radix.  All numbers of one form, from 0 to below the
product of the radices, are permuted by an alternating Feistel network over two moduli that are as
equal as can be; where their product is larger, a number beyond is permuted again until it is not
(cycle walking).  So every number has one image, and no two have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt, prod
from typing import Final

ROUNDS: Final = 10  # as in NIST SP 800-38G, whose construction this resembles but is not


def permuted(
    digits: Sequence[int], radices: Sequence[int], round_: Callable[[int, int], int]
) -> list[int]:
    """The digits of the image; `round_(number, half)` is the keyed function of the network."""
    size = prod(radices)
    left = isqrt(size - 1) + 1
    right = -(-size // left)
    value = _number(digits, radices)
    while True:
        value = _mixed(value, left, right, round_)
        if value < size:
            return _digits(value, radices)


def _mixed(value: int, left: int, right: int, round_: Callable[[int, int], int]) -> int:
    a, b = divmod(value, right)
    for number in range(0, ROUNDS, 2):
        a = (a + round_(number, b)) % left
        b = (b + round_(number + 1, a)) % right
    return a * right + b


def _number(digits: Sequence[int], radices: Sequence[int]) -> int:
    value = 0
    for digit, radix in zip(digits, radices, strict=True):
        value = value * radix + digit
    return value


def _digits(value: int, radices: Sequence[int]) -> list[int]:
    found: list[int] = []
    for radix in reversed(radices):
        value, digit = divmod(value, radix)
        found.append(digit)
    return found[::-1]
