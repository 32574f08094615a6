"""Bars with the floor as a line, as an SVG of a few kilobytes.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 860
_LABEL: Final = 190
_VALUE: Final = 150
_BAR: Final = 20
_STEP: Final = 28
_TITLE: Final = 34
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.h{font-size:16px}"
    ".s{fill:#57606a}.o{fill:#1f6feb}.p{fill:#9aa4b0}.r{stroke:#24292f;stroke-width:1}"
    ".f{stroke:#d1242f;stroke-width:2;stroke-dasharray:5 3}.ft{fill:#d1242f;font-size:11px}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    value: float
    least: float
    most: float
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    bars: Sequence[Bar]
    floor: float | None = None


def picture(title: str, axis: str, panels: Sequence[Panel]) -> str:
    """Each panel has a scale of its own, from zero; whiskers are the range."""
    parts: list[str] = []
    y = 56
    for panel in panels:
        parts += _panel(panel, y)
        y += _TITLE + _STEP * max(1, len(panel.bars)) + 14
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}"'
        f' viewBox="0 0 {WIDTH} {y}" role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">'
    )
    return "\n".join(
        [
            head,
            f"<style>{_STYLE}</style>",
            f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>',
            f'<text class="t h" x="16" y="26">{escape(title)}</text>',
            f'<text class="s" x="16" y="46">{escape(axis)}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, top: int) -> list[str]:
    most = max([panel.floor or 0.0, *(bar.most for bar in panel.bars)], default=0.0) or 1.0
    scale = (WIDTH - _LABEL - _VALUE) / most
    parts = [f'<text class="t" x="16" y="{top + 20}">{escape(panel.title)}</text>']
    for n, bar in enumerate(panel.bars):
        y = top + _TITLE + n * _STEP
        middle = y + _BAR / 2
        parts += [
            f'<text x="{_LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{"o" if bar.ours else "p"}" x="{_LABEL}" y="{y}"'
            f' width="{bar.value * scale:.1f}" height="{_BAR}"/>',
        ]
        if bar.least != bar.most:
            ends = [_LABEL + edge * scale for edge in (bar.least, bar.most)]
            parts.append(
                f'<path class="r" d="M{ends[0]:.1f} {middle}H{ends[1]:.1f}'
                f'M{ends[0]:.1f} {middle - 4}v8M{ends[1]:.1f} {middle - 4}v8"/>'
            )
        x = _LABEL + max(bar.value, bar.most) * scale + 6
        parts.append(f'<text x="{x:.1f}" y="{middle + 4}">{told(bar.value)}</text>')
    if panel.floor is not None:
        x = _LABEL + panel.floor * scale
        bottom = top + _TITLE + _STEP * max(1, len(panel.bars))
        parts += [
            f'<path class="f" d="M{x:.1f} {top + _TITLE - 6}V{bottom}"/>',
            f'<text class="ft" x="{x:.1f}" y="{top + _TITLE - 10}" text-anchor="middle">'
            f"floor {told(panel.floor)}</text>",
        ]
    return parts


def told(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
