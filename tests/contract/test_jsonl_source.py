"""The JSON lines source keeps the contract of every source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from warp.errors import PositionLost, SourceRefused, SourceUnavailable
from warp.model import ABSENT, UNCHANGED, Position, Verdict
from warp.sources.jsonl import JsonLinesOptions, JsonLinesSource
from warp.testing.contracts import SourceContract, select


class TestJsonLinesSource(SourceContract):
    @pytest.fixture(autouse=True)
    def _fresh(self, tmp_path: Path) -> None:
        self.path = tmp_path / "shop.jsonl"
        self.known: set[int] = set()
        self.append(table="orders", key=["id"], columns={"id": "int64", "name": "text"})

    def append(self, **line: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def make(self) -> JsonLinesSource:
        return JsonLinesSource(JsonLinesOptions(path=self.path), select)

    def put(self, id: int, name: str) -> None:
        operation = "u" if id in self.known else "c"
        self.known.add(id)
        self.append(op=operation, table="orders", row={"id": id, "name": name})

    def delete(self, id: int) -> None:
        self.append(op="d", table="orders", row={"id": id})

    def test_a_half_written_line_waits_until_it_is_whole(self) -> None:
        start = self.position()
        self.put(1, "a")
        with self.path.open("a") as file:
            file.write('{"op": "c", "table": "ord')
        [(event, end)] = self.follow(start, 1)
        assert event[2] == 1
        with self.path.open("a") as file:
            file.write('ers", "row": {"id": 2, "name": "b"}}\n')
        [(event, _)] = self.follow(end, 1)
        assert event[2] == 2

    def test_what_an_update_does_not_mention_is_unchanged(self) -> None:
        start = self.position()
        self.append(op="u", table="orders", row={"id": 1})
        [(event, _)] = self.follow(start, 1)
        assert event[3] is UNCHANGED

    def test_a_row_is_read_as_its_updates_left_it(self) -> None:
        self.put(1, "first")
        self.put(1, "a")
        self.append(op="u", table="orders", row={"id": 1})
        self.append(op="c", table="orders", row={"id": 2})
        assert sorted((e[2], e[3]) for e in self.snapshot()) == [(1, "a"), (2, ABSENT)]

    def test_a_broken_line_is_named_with_its_place(self) -> None:
        with self.path.open("a") as file:
            file.write("not json\n")
        with pytest.raises(SourceRefused, match=r"shop\.jsonl, line 2 .* found b'not json"):
            self.make().check()

    def test_every_broken_line_is_told_by_a_look_up_to_a_few(self) -> None:
        with self.path.open("a") as file:
            file.write("not json\n[1]\n" + "{}\n" * 9)
        found = self.make().diagnose()
        assert [one.verdict for one in found] == [Verdict.FAILED] * 5
        assert found[1].subject.startswith(f"{self.path}, line 3 ")
        assert found[1].mend == "mend or remove the line"

    def test_a_file_that_shrank_is_a_lost_position(self) -> None:
        with pytest.raises(PositionLost, match="was cut or replaced"):
            next(self.make().get_changes(Position("99999"), selection=select, idle=0.01))

    def test_a_missing_file_is_waited_for(self) -> None:
        self.path.unlink()
        with pytest.raises(SourceUnavailable, match="cannot read"):
            self.make().check()
