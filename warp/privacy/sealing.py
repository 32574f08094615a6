"""Positions that hold values of a covered key, readable by who has the privacy key alone.  Pure.

MongoDB's resume tokens hold the `_id` of an event, and the position of a poll the key of the last
row.  Both must be kept in a marker, and handed back to the source as they were.

Deterministic (equal positions are compared by their text): the initial vector is a MAC of the text
(as in SIV, RFC 5297), and the text is XORed with HMAC-SHA512 in counter mode.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from warp.errors import SourceRefused

_SEALED: Final = "sealed:"
_VECTOR_BYTES: Final = 16


class Sealing:
    def __init__(self, key: bytes) -> None:
        self._mac_key = hmac.digest(key, b"cartridge-warp position mac", "sha256")
        self._stream_key = hmac.digest(key, b"cartridge-warp position stream", "sha256")

    @staticmethod
    def is_sealed(text: str) -> bool:
        return text.startswith(_SEALED)

    def seal(self, text: str) -> str:
        plain = text.encode()
        vector = self._vector(plain)
        return _SEALED + base64.urlsafe_b64encode(vector + self._crossed(vector, plain)).decode()

    def open(self, text: str) -> str:
        """Raises SourceRefused where it was sealed with another key."""
        try:
            data = base64.urlsafe_b64decode(text.removeprefix(_SEALED))
        except binascii.Error:
            data = b""
        vector = data[:_VECTOR_BYTES]
        plain = self._crossed(vector, data[_VECTOR_BYTES:])
        if not hmac.compare_digest(vector, self._vector(plain)):
            raise SourceRefused(
                "expected a position sealed with this `privacy.key`, found one of another key; "
                "give the key back, or run `cartridge-warp resync SCHEMA`"
            )
        return plain.decode()

    def _vector(self, plain: bytes) -> bytes:
        return hmac.digest(self._mac_key, plain, "sha256")[:_VECTOR_BYTES]

    def _crossed(self, vector: bytes, data: bytes) -> bytes:
        made = bytearray()
        for number in range(-(-len(data) // 64)):
            made += hmac.digest(self._stream_key, vector + number.to_bytes(4, "big"), "sha512")
        return bytes(a ^ b for a, b in zip(data, made, strict=False))
