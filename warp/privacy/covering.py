"""What a rule makes of one value.  Pure.

`hash` and `tokenise` are keyed and deterministic: equal values stay equal, also across tables, and
nobody without the key can tell which value it was.  Nothing is stored, so nothing can be looked up
again.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from warp.model import Cover
from warp.privacy.permutation import permuted

SHOWN: Final = 4  # letters and digits that a mask leaves
_LONG_ENOUGH: Final = 2 * SHOWN  # of which fewer are shown of none: most of the value would be
COVER: Final = "*"

_LONGEST: Final = 64  # letters and digits whose form is kept: SHA-512 is as wide as half of them
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_TOKEN_LENGTH: Final = 26  # of five bits: 130

# Characters that take each other's place, as (first code point, how many).  Fixed by hand, since
# what Python calls a letter grows from version to version, and tokens must not change with it.
_CLASSES: Final = ((0x30, 10), (0x41, 26), (0x61, 26), (0xC0, 0x250 - 0xC0))
_LAST: Final = 0x24F
_CLASS_OF: Final = {
    first + each: (first, size, number)
    for number, (first, size) in enumerate(_CLASSES)
    for each in range(size)
}


class Covering:
    """The four ways to cover a value, with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Keys of their own: a token must not be told from a hash of the same value.
        self._token_key = hmac.digest(key, b"cartridge-warp tokenise", "sha512") if key else b""

    def text(self, cover: Cover, value: str) -> str:
        if cover is Cover.MASK:
            return masked(value)
        data = value.encode("utf-8", "surrogatepass")
        return self._hashed(data) if cover is Cover.HASH else self._token(value, data)

    def other(self, cover: Cover, family: str, value: str) -> str:
        """A value that is no text, by the name of its sort and its canonical text: 1 is not "1".

        Its token does not keep its form: the number 1 and the text "1" would get tokens of one
        form, and in a key might take each other's place.
        """
        if cover is Cover.MASK:
            return masked(value)
        data = b"\0" + family.encode() + b"\0" + value.encode("utf-8", "surrogatepass")
        return self._hashed(data) if cover is Cover.HASH else self._formless(data)

    def _hashed(self, data: bytes) -> str:
        return hmac.digest(self._key, data, "sha256").hex()

    def _token(self, value: str, data: bytes) -> str:
        """A permutation of all texts of the value's form, so that no two get the same token."""
        places: list[int] = []
        classes: list[tuple[int, int, int]] = []
        for place, code in enumerate(map(ord, value)):
            if code > _LAST:
                return self._formless(data)
            found = _CLASS_OF.get(code)
            if found is not None:
                places.append(place)
                classes.append(found)
        if len(places) > _LONGEST:
            return self._formless(data)
        if not places:
            return value  # an empty text, or signs alone
        form = list(value)
        digits = [ord(value[p]) - first for p, (first, _, _) in zip(places, classes, strict=True)]
        for place in places:
            form[place] = "\x01"
        tweak = "".join(form).encode() + bytes(number for _, _, number in classes)
        made = permuted(digits, [size for _, size, _ in classes], self._rounds(tweak))
        for place, (first, _, _), digit in zip(places, classes, made, strict=True):
            form[place] = chr(first + digit)
        return "".join(form)

    def _rounds(self, tweak: bytes) -> Callable[[int, int], int]:
        key = hmac.digest(self._token_key, tweak, "sha512")

        def round_(number: int, half: int) -> int:
            data = bytes((number,)) + half.to_bytes((half.bit_length() + 7) // 8 or 1, "big")
            return int.from_bytes(hmac.digest(key, data, "sha512"), "big")

        return round_

    def _formless(self, data: bytes) -> str:
        bits = int.from_bytes(hmac.digest(self._token_key, b"\0formless" + data, "sha256"), "big")
        return "".join(_LETTERS[bits >> 5 * place & 31] for place in range(_TOKEN_LENGTH))


def masked(value: str) -> str:
    """Letters and digits, and whatever is not ASCII, become `*`; of many the last four stay."""
    hidden = [place for place, character in enumerate(value) if _is_said(character)]
    left = SHOWN if len(hidden) >= _LONG_ENOUGH else 0
    form = list(value)
    for place in hidden[: len(hidden) - left]:
        form[place] = COVER
    return "".join(form)


def _is_said(character: str) -> bool:
    return character.isalnum() or not character.isascii()
