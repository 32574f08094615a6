"""Draws the diagrams of docs/concepts.md: `python docs/images/diagrams.py`.  Pure, no packages.

SVG by hand instead of a drawing language of the browser: pages must ask nobody for a script.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

HERE: Final = Path(__file__).parent
WIDTH: Final = 860
_LINE: Final = 18
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.s{fill:#57606a;"
    "font-size:12px}.m{text-anchor:middle}.e{text-anchor:end}.b{fill:#f6f8fa;stroke:#8c959f}"
    ".o{fill:#ddf4ff;stroke:#1f6feb}.w{fill:#fff8c5;stroke:#bf8700}.x{fill:#ffebe9;stroke:#d1242f}"
    ".a{stroke:#57606a;stroke-width:1.5;fill:none;marker-end:url(#e)}"
    ".l{stroke:#8c959f;stroke-dasharray:4 4;fill:none}"
)
_ARROWHEAD: Final = (
    '<defs><marker id="e" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#57606a"/></marker></defs>'
)


@dataclass
class Sheet:
    """One picture, drawn from its top left corner."""

    title: str
    height: int
    parts: list[str] = field(default_factory=list)

    def box(self, x: int, y: int, width: int, height: int, lines: Sequence[str], kind: str) -> None:
        """The first line is what it is, the others what there is to say."""
        self.parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
        )
        top = y + height / 2 - (len(lines) - 1) * _LINE / 2 + 4
        for number, line in enumerate(lines):
            style = "t m" if number == 0 else "s m"
            self.text(x + width / 2, top + number * _LINE, line, style)

    def text(self, x: float, y: float, said: str, style: str = "") -> None:
        self.parts.append(f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(said)}</text>')

    def arrow(self, *places: tuple[int, int], both: bool = False) -> None:
        path = "L".join(f"{x} {y}" for x, y in places)
        start = ' marker-start="url(#e)"' if both else ""
        self.parts.append(f'<path class="a" d="M{path}"{start}/>')

    def line(self, x: int, top: int, bottom: int) -> None:
        self.parts.append(f'<path class="l" d="M{x} {top}V{bottom}"/>')

    def svg(self) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height}"'
                f' viewBox="0 0 {WIDTH} {self.height}" role="img"'
                f" aria-label={quoteattr(self.title)}>",
                f"<style>{_STYLE}</style>",
                _ARROWHEAD,
                f'<rect width="{WIDTH}" height="{self.height}" fill="#fff"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )


def parts() -> Sheet:
    sheet = Sheet("Who does what: configuration, coordinator, ledger, workers, both ends", 330)
    sheet.box(20, 30, 150, 56, ["config.yaml", "schemas, tables"], "b")
    sheet.box(230, 30, 180, 56, ["coordinator", "any number, one leads"], "b")
    sheet.box(500, 30, 180, 56, ["ledger (Redis)", "who may work on what"], "w")
    sheet.arrow((170, 58), (228, 58))
    sheet.arrow((410, 58), (498, 58))
    sheet.text(454, 50, "offers", "s m")
    sheet.arrow((590, 86), (590, 136), both=True)
    sheet.text(602, 115, "claim, renew, release", "s")
    for shift in (16, 8, 0):
        sheet.box(400 + shift, 140 - shift // 2 + 8, 300, 62, [], "b")
    sheet.box(400, 148, 300, 62, ["worker processes", "each runs some units at once"], "b")
    sheet.box(20, 148, 200, 62, ["source", "its log, its tables"], "b")
    sheet.arrow((220, 170), (398, 170))
    sheet.text(280, 162, "changes, chunks", "s m")
    sheet.arrow((398, 194), (222, 194))
    sheet.text(280, 211, "may forget, at last", "s m")
    sheet.box(
        230,
        256,
        610,
        56,
        ["destination: ONE transaction", "rows + quarantine + audit + marker with its fence"],
        "o",
    )
    sheet.arrow((550, 210), (550, 254))
    sheet.arrow((350, 254), (350, 88))
    sheet.text(340, 120, "markers: the truth", "s e")
    return sheet


def change() -> Sheet:
    sheet = Sheet("The path of a change: four hops for each batch", 262)
    hops = [
        ("1  get_changes", "a batch of columns", "and where it ends"),
        ("2  evolve", "fits it to the columns", "that are there now"),
        ("3  write_batch", "all of it", "or nothing"),
        ("4  acknowledge", "the source may", "forget it now"),
    ]
    for number, hop in enumerate(hops):
        x = 20 + number * 212
        sheet.box(x, 24, 184, 78, hop, "o" if number == 2 else "b")
        if number:
            sheet.arrow((x - 28, 63), (x - 2, 63))
    sheet.box(232, 146, 608, 96, [], "o")
    sheet.text(250, 168, "inside the transaction", "t")
    sheet.text(250, 188, "update the marker where fence = mine and batch = the last one:", "s")
    sheet.text(250, 206, "exactly one row, or everything is rolled back", "s")
    sheet.text(250, 224, "then the rows, rows set aside with why, what was deleted", "s")
    sheet.arrow((536, 102), (536, 144))
    sheet.text(20, 168, "batch n+1 is read", "s")
    sheet.text(20, 186, "while batch n is written", "s")
    return sheet


def takeover() -> Sheet:
    sheet = Sheet("A worker that was paused for an hour wakes up and writes nothing", 430)
    lanes = {"worker A": 110, "ledger": 330, "worker B": 550, "destination": 750}
    for name, x in lanes.items():
        sheet.box(x - 80, 16, 160, 34, [name], "w" if name == "ledger" else "b")
        sheet.line(x, 50, 414)
    a, ledger, b, there = lanes.values()

    def step(y: int, start: int, end: int, said: str, *, over: int | None = None) -> None:
        sheet.arrow((start, y), (end, y))
        sheet.text((start + (over or end)) / 2, y - 6, said, "s m")

    step(80, a, ledger, "claim: fence 7")
    step(110, a, there, "writes with fence 7", over=ledger)
    sheet.box(a - 80, 126, 160, 44, ["stands still", "an hour, say"], "x")
    sheet.text(ledger, 176, "the lease runs out", "s m")
    step(206, b, ledger, "claim: fence 8")
    step(240, b, there, "fence 7 becomes 8")
    step(270, b, there, "goes on from the marker")
    sheet.box(a - 80, 286, 160, 30, ["wakes up"], "x")
    step(344, a, there, "… where fence = 7", over=ledger)
    sheet.arrow((there, 378), (a, 378))
    sheet.text((a + ledger) / 2, 372, "no such row: rolled back", "s m")
    sheet.text(a + 10, 402, "drops the unit, claims other work", "s")
    return sheet


def snapshot() -> Sheet:
    sheet = Sheet("The stream runs from the first moment, chunks are read beside it", 318)
    sheet.text(20, 38, "the source's log", "t")
    sheet.arrow((160, 33), (840, 33))
    sheet.box(170, 56, 120, 52, ["marker", "is stored first"], "w")
    sheet.box(300, 56, 470, 52, ["stream", "lands where the row is not newer than it"], "o")
    for number, (x, version) in enumerate([(310, "S1"), (430, "S2"), (550, "S3")], 1):
        sheet.box(x, 128, 108, 52, [f"chunk {number}", f"as of {version}"], "b")
        sheet.arrow((x + 54, 180), (x + 54, 222))
    sheet.arrow((664, 108), (664, 222))
    sheet.box(
        300,
        224,
        370,
        74,
        ["destination", "chunk rows: only where none is there or an", "older one; deletes wait"],
        "o",
    )
    sheet.arrow((670, 260), (698, 260))
    sheet.box(700, 224, 140, 74, ["settled", "when the last", "chunk is done"], "w")
    sheet.text(20, 86, "all of the time", "s")
    sheet.text(20, 158, "any worker, any order,", "s")
    sheet.text(20, 176, "again if it was killed", "s")
    return sheet


PICTURES: Final[dict[str, Callable[[], Sheet]]] = {
    "concepts-parts.svg": parts,
    "concepts-change.svg": change,
    "concepts-takeover.svg": takeover,
    "concepts-snapshot.svg": snapshot,
}


def main() -> None:
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
