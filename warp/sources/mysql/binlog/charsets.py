"""Character sets of MySQL and MariaDB: collation id -> character set -> text.

Where Python's codec of the same name gives another character than the server does, the server is
followed: each table was compared with `CONVERT(… USING utf32)` of MariaDB 10.11.
"""

# ruff: noqa: E501, RUF001  (tables of characters)
from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import cache
from typing import Final

BINARY: Final = "binary"

_IDS: Final = {
    "armscii8": (32, 64),
    "ascii": (11, 65),
    "big5": (1, 84),
    BINARY: (63,),
    "cp1250": (26, 34, 44, 66, 99),
    "cp1251": (14, 23, 50, 51, 52),
    "cp1256": (57, 67),
    "cp1257": (29, 58, 59),
    "cp850": (4, 80),
    "cp852": (40, 81),
    "cp866": (36, 68),
    "cp932": (95, 96),
    "dec8": (3, 69),
    "eucjpms": (97, 98),
    "euckr": (19, 85),
    "gb18030": (248, 249, 250),
    "gb2312": (24, 86),
    "gbk": (28, 87),
    "geostd8": (92, 93),
    "greek": (25, 70),
    "hebrew": (16, 71),
    "hp8": (6, 72),
    "keybcs2": (37, 73),
    "koi8r": (7, 74),
    "koi8u": (22, 75),
    "latin1": (5, 8, 15, 31, 47, 48, 49, 94),
    "latin2": (2, 9, 21, 27, 77),
    "latin5": (30, 78),
    "latin7": (20, 41, 42, 79),
    "macce": (38, 43),
    "macroman": (39, 53),
    "sjis": (13, 88),
    "swe7": (10, 82),
    "tis620": (18, 89),
    "ucs2": (35, 90, *range(128, 152), 159, 640, 641, 642),
    "ujis": (12, 91),
    "utf16": (54, 55, *range(101, 125), 672, 673, 674),
    "utf16le": (56, 62),
    "utf32": (60, 61, *range(160, 184), 736, 737, 738),
    "utf8mb3": (33, 76, 83, *range(192, 216), 223, 576, 577, 578),
    "utf8mb4": (45, 46, *range(224, 248), *range(255, 324), 608, 609, 610),
}
_CHARSETS: Final = {number: name for name, numbers in _IDS.items() for number in numbers}
# MariaDB counts its "nopad" collations from 1024 and has blocks of 256 for Unicode 14.
_NOPAD: Final = 1024
_BLOCKS_FROM: Final = 2048
_BLOCKS: Final = ("utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32")


def charset_of(collation: int) -> str | None:
    """The character set of a collation id; None where we do not know it."""
    if collation >= _BLOCKS_FROM:
        block = (collation - _BLOCKS_FROM) // 256
        return _BLOCKS[block] if block < len(_BLOCKS) else None
    return _CHARSETS.get(collation - _NOPAD if collation > _NOPAD else collation)


_SINGLE_BYTE: Final = {
    "ascii": "ascii",
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "cp1256": "cp1256",
    "cp1257": "cp1257",
    "cp850": "cp850",
    "cp852": "cp852",
    "cp866": "cp866",
    "greek": "iso8859_7",
    "hebrew": "iso8859_8",
    "hp8": "hp_roman8",
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "latin1": "cp1252",
    "latin2": "iso8859_2",
    "latin5": "iso8859_9",
    "latin7": "iso8859_13",
    "macce": "mac_latin2",
    "macroman": "mac_roman",
    "swe7": "ascii",
    "tis620": "tis_620",
}
# Bytes for which the server has another character than Python.
_EXCEPTIONS: Final[dict[str, dict[int, str]]] = {
    "cp1256": dict.fromkeys((0x8A, 0x8F, 0x98, 0x9A, 0x9F, 0xAA, 0xC0, 0xFF), "?"),
    "cp866": {0xFC: "\N{SUPERSCRIPT LATIN SMALL LETTER N}", 0xFD: "\N{SUPERSCRIPT TWO}"},
    "greek": {
        0xA1: "\N{MODIFIER LETTER REVERSED COMMA}",
        0xA2: "\N{MODIFIER LETTER APOSTROPHE}",
        **dict.fromkeys((0xA4, 0xA5, 0xAA), "?"),
    },
    "hebrew": {0xAF: "\N{OVERLINE}"},
    "koi8u": {0x95: "\N{BULLET}"},
    "latin1": {code: chr(code) for code in (0x81, 0x8D, 0x8F, 0x90, 0x9D)},
    "swe7": dict(zip(b"@[\\]^`{|}~\x7f", "ÉÄÖÅÜéäöåü?", strict=True)),
    "tis620": dict.fromkeys((160, *range(219, 223), *range(252, 256)), "�"),
}
# Character sets that Python lacks: what stands for the bytes from 0x80.
_UPPER_HALVES: Final = {
    "armscii8": "".join(map(chr, range(0x80, 0xA1)))
    + "❁§։)(»«—.՝,-՟…՜՛՞ԱաԲբԳգԴդԵեԶզԷէԸըԹթԺժԻիԼլԽխԾծԿկՀհՁձՂղՃճՄմՅյՆնՇշՈոՉչՊպՋջՌռՍսՎվՏտՐրՑցՒւՓփՔքՕօՖֆ\N{RIGHT SINGLE QUOTATION MARK}'",
    "dec8": "".join(map(chr, range(0x80, 0xA1)))
    + "¡¢£?¥?§¤©ª«????°±²³?µ¶·?¹º»¼½?¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ?ÑÒÓÔÕÖŒØÙÚÛÜŸ?ßàáâãäåæçèéêëìíîï?ñòóôõöœøùúûüÿ??",
    "geostd8": "€?\N{SINGLE LOW-9 QUOTATION MARK}?„…†‡?‰?\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}?????\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}“”•\N{EN DASH}—???\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}????"
    + "".join(map(chr, range(0xA0, 0xC0)))
    + "აბგდევზჱთიკლმნჲოპჟრსტჳუფქღყშჩცძწჭხჴჯჰჵ???????????????????????№??",
    "keybcs2": "ČüéďäĎŤčěĚĹÍľĺÄÁÉžŽôöÓůÚýÖÜŠĽÝŘťáíóúňŇŮÔšřŕŔ¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀"
    "\N{GREEK SMALL LETTER ALPHA}ßΓπΣ\N{GREEK SMALL LETTER SIGMA}µτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\xa0",
}
_MULTI_BYTE: Final = {
    "cp932": "cp932",
    "euckr": "cp949",
    "gb18030": "gb18030",
    "gb2312": "gb2312",
    "gbk": "gbk",
    "ucs2": "utf-16-be",
    "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
}
# Japanese, where Python and the server differ.
_BACKSLASH: Final = {0xFF3C: "\\"}
_USER_DEFINED: Final = 0xF5  # the first byte of ten rows for characters of one's own, U+E000 on

Decode = Callable[[bytes], str]


@cache
def decoder(charset: str) -> Decode | None:
    """What reads text of a character set, raising UnicodeDecodeError; None: no such text here."""
    if charset in _MULTI_BYTE:
        return _strict(_MULTI_BYTE[charset])
    if charset == "big5":
        return _big5()
    if charset == "sjis":
        read = _strict("shift_jis")
        return lambda raw: read(raw).translate(_BACKSLASH)
    if charset in ("ujis", "eucjpms"):
        return _euc(microsoft=charset == "eucjpms")
    if charset in _UPPER_HALVES:
        return _from_table("".join(map(chr, range(0x80))) + _UPPER_HALVES[charset])
    if charset in _SINGLE_BYTE:
        return _from_table(_table(charset))
    return None


def is_utf8(charset: str) -> bool:
    return _MULTI_BYTE.get(charset) == "utf-8"


def _strict(codec: str) -> Decode:
    decode = codecs.lookup(codec).decode
    return lambda raw: decode(raw, "strict")[0]


def _big5() -> Decode:
    """Big5 and the seven characters of ETEN at its end, which Python has in cp950 only."""
    read, eten = _strict("big5"), _strict("cp950")

    def decode(raw: bytes) -> str:
        texts: list[str] = []
        while True:
            try:
                return "".join(texts) + read(raw)
            except UnicodeDecodeError as error:
                pair = raw[error.start : error.start + 2]
                if not b"\xf9\xd6" <= pair <= b"\xf9\xdc":
                    raise
                texts += [read(raw[: error.start]), eten(pair)]
                raw = raw[error.start + 2 :]

    return decode


def _euc(*, microsoft: bool) -> Decode:
    """EUC of JIS, character by character: as Python has it, or with Microsoft's rows (cp932).

    Of `eucjpms` the 106 IBM characters in three bytes are unknown to Python: such text is Invalid.
    """
    euc, shifted = _strict("euc_jp"), _strict("cp932")

    def pair(row: int, cell: int) -> str:
        if row >= _USER_DEFINED:
            return chr(0xE000 + (row - _USER_DEFINED) * 94 + cell - 0xA1)
        if not microsoft:
            return euc(bytes((row, cell))).translate(_BACKSLASH)
        # The same table as Shift-JIS, which has two rows under each first byte.
        number = row - 0xA1
        first = number // 2 + (0x81 if number < 62 else 0xC1)
        second = cell - 2 if number % 2 else cell - 0x61 if cell < 0xE0 else cell - 0x60
        return shifted(bytes((first, second)))

    def decode(raw: bytes) -> str:
        if raw.isascii():
            return raw.decode("ascii")
        texts, place = [], 0
        while place < len(raw):
            first = raw[place]
            size = 1 if first < 0x80 else 3 if first == 0x8F else 2
            if place + size > len(raw):
                raise UnicodeDecodeError("eucjpms", raw, place, len(raw), "cut short")
            part = raw[place : place + size]
            if size == 3 and part[1] >= _USER_DEFINED:
                texts.append(chr(0xE3AC + (part[1] - _USER_DEFINED) * 94 + part[2] - 0xA1))
            elif size == 2 and first != 0x8E:
                texts.append(pair(part[0], part[1]))
            else:
                texts.append(euc(part))
            place += size
        return "".join(texts)

    return decode


def _table(charset: str) -> str:
    codec = _SINGLE_BYTE[charset]
    characters = [bytes((code,)).decode(codec, "replace") for code in range(256)]
    # What has no character in its set is shown by the server as a question mark.
    characters = ["?" if character == "\ufffd" else character for character in characters]
    for code, character in _EXCEPTIONS.get(charset, {}).items():
        characters[code] = character
    return "".join(characters)


def _from_table(table: str) -> Decode:
    decode = codecs.charmap_decode
    return lambda raw: decode(raw, "strict", table)[0]
