"""What the benchmark beside floors and peers decides without any server."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

from benchmarks.side_by_side.figures import (
    FLOOR,
    Measured,
    Run,
    Scenario,
    Spread,
    Summary,
    Verdict,
    scenarios,
)
from benchmarks.side_by_side.page import OURS, Page
from benchmarks.side_by_side.picture import Bar, Panel, picture, told
from benchmarks.side_by_side.profile import summed
from benchmarks.side_by_side.shop import LAST, changes, in_pieces, order, written

SNAPSHOT = Scenario("snapshot", "MongoDB")
EQUAL = Verdict(1_000, 1_000)
WRONG = Verdict(1_000, 1_000, {"weight": 7})


def run(contender: str, cpu: float, verdict: Verdict = EQUAL) -> Run:
    measured = Measured(wall=2.0, cpu=cpu, servers={"source": 0.5})
    return Run(SNAPSHOT, contender, "1.0", 1_000, measured, verdict)


def test_a_run_that_differs_from_its_source_has_no_figure_nor_has_any_other_of_its_contender() -> (
    None
):
    right, wrong = run("peer", 0.25), run("peer", 0.125, WRONG)
    assert right.counts
    assert not wrong.counts
    page = Page("p", "here", [run(FLOOR, 0.1), right, wrong]).text()
    (line,) = [line for line in page.splitlines() if line.startswith("| **peer**")]
    assert "`weight` differs in 7 rows" in line
    assert "250.00" not in line
    assert "125.00" not in line


def test_a_row_too_many_or_too_few_is_a_difference() -> None:
    assert not Verdict(10, 11).equal
    assert str(Verdict(10, 9)) == "9 rows of 10"


def test_a_contender_that_failed_once_is_named_with_the_reason() -> None:
    failed = Run(SNAPSHOT, "peer", "1.0", 1_000, failed="could not log in")
    page = Page("p", "here", [run("peer", 0.25), failed]).text()
    assert "could not log in" in page
    assert "250.00" not in page


def test_the_median_and_the_range_are_told() -> None:
    assert Spread.of([3.0, 1.0, 2.0]).told() == "2 (1 to 3)"
    assert Spread.of([1234.5]).told() == "1,234"


def test_cost_is_told_beside_the_floor_of_the_same_run() -> None:
    page = Page("p", "here", [run(FLOOR, 0.1), run(OURS, 0.25)]).text()
    (line,) = [line for line in page.splitlines() if line.startswith(f"| **{OURS}**")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:5] == ["500", "250.00", "2.5", "500.0"]


def test_runs_come_back_from_json_as_they_were() -> None:
    runs = [run(OURS, 0.25), run("peer", 0.5, WRONG), replace(run("x", 1.0), measured=None)]
    again = [Run.from_json(one) for one in json.loads(json.dumps([r.as_json() for r in runs]))]
    assert again == runs


def test_summaries_keep_the_order_of_the_first_runs() -> None:
    found = scenarios([run("b", 1.0), run("a", 1.0), run("b", 2.0)])
    assert [summary.contender for summary in found[SNAPSHOT]] == ["b", "a"]
    assert isinstance(found[SNAPSHOT][0], Summary)


def test_bars_are_to_scale_and_the_floor_is_a_line_among_them() -> None:
    panels = [Panel("a & b", [Bar("half <1>", 50.0, 40.0, 60.0, ours=True)], floor=100.0)]
    drawn = ElementTree.fromstring(picture("t", "x", panels))
    space = "{http://www.w3.org/2000/svg}"
    (bar,) = [r for r in drawn.iter(f"{space}rect") if r.get("class") == "o"]
    (line,) = [p for p in drawn.iter(f"{space}path") if p.get("class") == "f"]
    floor_x = float((line.get("d") or "").partition(" ")[0].removeprefix("M"))
    assert float(bar.get("width") or 0) * 2 == floor_x - float(bar.get("x") or 0)
    assert "half <1>" in [text.text for text in drawn.iter(f"{space}text")]


def test_a_picture_without_any_bar_is_still_one() -> None:
    ElementTree.fromstring(picture("nothing", "x", [Panel("nobody", [])]))


def test_only_digits_that_mean_something_are_told() -> None:
    assert [told(value) for value in (123_456.7, 12.345, 0.5)] == ["123,457", "12.3", "0.5"]


def test_a_profile_sums_by_the_innermost_frame_and_by_the_innermost_of_our_functions() -> None:
    ours = "process 7:python;main (/x/workers/cli.py);run (/x/warp/pipeline.py)"
    profile = summed(
        "t",
        [
            f"{ours};copy (libpq.so);0x7f (libc.so.6) 6",
            f"{ours} 3",
            "wait (/usr/lib/python3.11/threading.py) 1",
            "get (/x/warp/ahead.py);PyThread_acquire_lock_timed (libpython);0x7f (libc.so.6) 99",
            "not a stack",
        ],
    )
    assert profile.samples == 10
    assert profile.own == [
        ("copy (libpq.so)", 6),
        ("run (warp/pipeline.py)", 3),
        ("wait (threading.py)", 1),
    ]
    assert profile.places == [("run (warp/pipeline.py)", 9), ("outside", 1)]


def test_changes_touch_every_order_at_most_once_and_end_with_the_last() -> None:
    some = changes(700)
    assert len(some) == 700
    assert len({change.id for change in some}) == 700
    assert some[-1].id == LAST
    assert all(change.id < 700 for change in some if change.what != "insert")
    left, gone = written(some)
    assert len(left) + len(gone) == 700
    assert left[-1] == order(LAST, 1)


def test_the_last_change_is_a_transaction_of_its_own() -> None:
    some = changes(25)
    pieces = list(in_pieces(some, 10))
    assert [len(piece) for piece in pieces] == [10, 10, 4, 1]
    assert [change for piece in pieces for change in piece] == some
