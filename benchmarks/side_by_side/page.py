"""The results as a page of Markdown and pictures.  Pure but for `save`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.side_by_side.figures import FLOOR, Run, Scenario, Spread, Summary, scenarios
from benchmarks.side_by_side.picture import Bar, Panel, picture
from benchmarks.side_by_side.profile import Profile

OURS: Final = "cartridge-warp"
NOTHING: Final = "-"
HEAD: Final = (
    *("", "per second", "CPU s per million", "times the floor's CPU", "source CPU s/M"),
    *("destination CPU s/M", "start, CPU s", "peak MiB", "compared with the source"),
)
READING: Final = """\
- Medians and ranges of the runs, which took turns. Each began with an empty destination database
  and counts only if every row and value in it was then equal to the source; who differed once has
  no figure.
- *CPU* is user and system time of all processes of a contender, our coordinator among them, beside
  that of the two servers. The start of a process is told apart where it can be; of the programs in
  Go it is in the figure, and small.
- *floor* reads without looking into what it reads, and writes bytes that are ready; its time is
  that of the slower half, its CPU that of both. No engine can be cheaper.
- Streams: the contender has copied the table and follows the log, sleeps (SIGSTOP) while the
  changes are made, and catches up. A seventh of the changes are inserts, a seventh deletes; no row
  changes twice."""


@dataclass(frozen=True, slots=True)
class Page:
    name: str
    conditions: str
    runs: Sequence[Run]
    left_out: Mapping[Scenario, Mapping[str, str]] = field(default_factory=dict)
    profiles: Sequence[Profile] = ()

    def text(self) -> str:
        parts = ["# Side by side", self.conditions, READING]
        for name, title, _ in self._pictures():
            parts.append(f"![{title}]({name})")
        for scenario, summaries in scenarios(self.runs).items():
            parts.append(_section(scenario, summaries, self.left_out.get(scenario, {})))
        if self.profiles:
            parts.append("## Where the time of a worker goes")
            parts += map(_profile, self.profiles)
        return "\n\n".join(parts) + "\n"

    def _pictures(self) -> list[tuple[str, str, str]]:
        """File, title, content."""
        found = scenarios(self.runs)
        made = []
        for kind, chosen in (
            ("snapshots", [s for s in found if s.shape == "snapshot"]),
            ("streams", [s for s in found if s.shape != "snapshot"]),
        ):
            for by, what in (("cpu", "CPU second"), ("time", "second")) if chosen else ():
                unit = chosen[0].unit
                title = f"{kind.capitalize()} into PostgreSQL: {unit} per {what}"
                axis = "more is better; medians, and ranges as whiskers"
                panels = [_panel(scenario, found[scenario], by) for scenario in chosen]
                name = f"{self.name}-{kind}-{by}.svg"
                made.append((name, title, picture(title, axis, panels)))
        return made

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, _, content in self._pictures():
            (folder / name).write_text(content)
        kept = [run.as_json() for run in self.runs]
        (folder / f"{self.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
        path = folder / f"{self.name}.md"
        path.write_text(self.text())
        return path


def floor_of(summaries: Sequence[Summary]) -> Summary | None:
    return next((s for s in summaries if s.contender == FLOOR and s.trustworthy), None)


def _panel(scenario: Scenario, summaries: Sequence[Summary], by: str) -> Panel:
    def rate(summary: Summary) -> Spread:
        return summary.rate if by == "time" else summary.efficiency

    floor = floor_of(summaries)
    bars = [
        Bar(
            summary.contender,
            rate(summary).middle,
            rate(summary).least,
            rate(summary).most,
            summary.contender.startswith(OURS),
        )
        for summary in summaries
        if summary.contender != FLOOR and summary.trustworthy
    ]
    return Panel(scenario.title, bars, rate(floor).middle if floor else None)


def _section(scenario: Scenario, summaries: Sequence[Summary], left_out: Mapping[str, str]) -> str:
    amount = summaries[0].runs[0].amount
    lines = [f"## {scenario.title}", "", f"{amount:,} {scenario.unit}.", ""]
    lines += [_line(HEAD), _line(["---"] * len(HEAD))]
    floor = floor_of(summaries)
    lines += [_line(_cells(summary, floor)) for summary in summaries]
    if left_out:
        lines += ["", "Left out:", ""]
        lines += [f"- {name}: {why}" for name, why in left_out.items()]
    return "\n".join(lines)


def _cells(summary: Summary, floor: Summary | None) -> list[str]:
    name = f"**{summary.contender}** ({summary.about})"
    if not summary.trustworthy:
        return [name, *[NOTHING] * (len(HEAD) - 2), _one_line(summary.verdict)]
    times = f"{summary.cost.middle / floor.cost.middle:.1f}" if floor else NOTHING
    startup = summary.startup
    return [
        name,
        summary.rate.told(),
        summary.cost.told(".2f"),
        times,
        f"{summary.server('source').middle:.1f}",
        f"{summary.server('destination').middle:.1f}",
        f"{startup.middle:.1f}" if startup else "within",
        f"{summary.memory.middle:,.0f}" if summary.memory.middle else NOTHING,
        summary.verdict,
    ]


def _profile(profile: Profile) -> str:
    lines = [f"### {profile.title}", ""]
    if profile.failed or not profile.samples:
        return "\n".join([*lines, f"No profile: {_one_line(profile.failed or 'no samples')}"])
    lines += [f"{profile.samples:,} samples of threads that did not wait; a hundred a second.", ""]
    for head, counted in (("own time", profile.own), ("our innermost function", profile.places)):
        lines += [_line([head, "share"]), _line(["---", "---:"])]
        lines += [
            _line([f"`{_one_line(frame)}`", f"{count / profile.samples:.1%}"])
            for frame, count in counted
        ]
        lines.append("")
    return "\n".join(lines).rstrip()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
