"""`cartridge-warp verify` and `repair` as a person runs them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from postgresql_shop import Shop
from verified_copy import FAULTS, ORDERS, VerifiedCopy, copy_of, plant

from commands import certificate, repair, verify
from commands.cli import Flags
from warp import startup
from warp.assembly import Plugged
from warp.config import Settings, load
from warp.errors import ConfigError, WarpError


@dataclass
class Terminal:
    settings: Settings
    copy: VerifiedCopy
    out: pytest.CaptureFixture[str]

    @property
    def assembly(self) -> Plugged:
        return Plugged(self.settings)

    def verify(self, **options: Any) -> tuple[int, Any]:
        given = {"here": True, "as_json": True} | options
        return self._told(verify.run(self.settings, self.assembly, (), **given))

    def repair(self, *, apply: bool) -> tuple[int, Any]:
        return self._told(repair.run(self.settings, self.assembly, (), apply=apply, as_json=True))

    def check(self, file: Path) -> tuple[int, Any]:
        return self._told(certificate.check(self.settings, self.assembly, file, as_json=True))

    def _told(self, code: int) -> tuple[int, Any]:
        # Here the logs of the stream in this very process stand before it.
        return code, json.loads(self.out.readouterr().out.splitlines()[-1])


@pytest.fixture
def terminal(
    capture_shop: Shop,
    pg_warehouse: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Terminal]:
    with copy_of(capture_shop, pg_warehouse) as copy:
        config = tmp_path / "shop.json"
        options = {
            "connection_string": capture_shop.reading_url,
            "slot": capture_shop.slot,
            "publication": capture_shop.publication,
        }
        config.write_text(
            json.dumps(
                {
                    "source": {"type": "postgresql", **options},
                    "destination": {"type": "postgresql", "connection_string": pg_warehouse},
                    "schemas": [{"name": "shop"}],
                    "chunk_rows": 25,
                    "verify": {"masked": ["name"]},
                }
            )
        )
        settings = load(config, {}, {})

        def land(settings: Settings, metadata: Any, places: Any) -> list[str]:
            copy.replay(ORDERS)
            return []

        monkeypatch.setattr(repair, "offer_replays", land)
        with click.Context(click.Command("verify"), obj=Flags()):
            yield Terminal(settings, copy, capsys)


def test_what_differs_is_told_mended_and_proved(terminal: Terminal, tmp_path: Path) -> None:
    copy = terminal.copy
    with copy.following(ORDERS):
        plant(copy)
        code, told = terminal.verify()
        assert code == startup.DIFFERENT
        [table] = told["tables"]
        assert (table["rows"], table["differences"], table["units"]) == (
            *(60, len(FAULTS)),
            {"done": 3, "all": 3},
        )
        assert {one["key"]: one["what"] for one in table["examples"]} == FAULTS
        assert table["oldest_verdict"]
        assert terminal.verify(last=True)[1]["tables"] == told["tables"]

        code, shown = terminal.repair(apply=False)
        assert code == startup.DIFFERENT
        rows = {row["key"]: row for row in shown["tables"][0]["rows"]}
        assert set(rows) == set(FAULTS)
        assert rows['{"id": 33}']["columns"] == {"name": {"source": "***", "destination": "***"}}
        assert copy.differences(ORDERS) == FAULTS

        code, done = terminal.repair(apply=True)
        assert (code, done["tables"][0]["became"]) == (startup.DONE, {"replayed": len(FAULTS)})

        file = tmp_path / "proof.json"
        code, told = terminal.verify(write=file)
        assert (code, told["equal"]) == (startup.DONE, True)
    proves(terminal, file)


def proves(terminal: Terminal, file: Path) -> None:
    """That a certificate holds, and neither itself nor a row can be changed unseen."""
    code, checked = terminal.check(file)
    assert (code, checked["equal"], checked["same_configuration"]) == (startup.DONE, True, True)
    written = file.read_text()
    file.write_text(written.replace('"rows": 60', '"rows": 61'))
    with pytest.raises(ConfigError, match="changed since"):
        terminal.check(file)
    file.write_text(written)
    terminal.copy.run("update shop.orders set price = price + 0.01 where id = 42")
    code, checked = terminal.check(file)
    assert (code, checked["equal"], checked["moved_on"]) == (startup.DIFFERENT, False, False)


def test_a_table_nobody_knows_is_told_with_the_nearest_name(terminal: Terminal) -> None:
    terminal.copy.bring(ORDERS)
    with pytest.raises(ConfigError, match=r"shop\.orders"):
        verify.run(terminal.settings, terminal.assembly, ("order",))


def test_units_that_nobody_takes_are_no_silence(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "BEGINS_WITHIN", 0.0)
    terminal.copy.bring(ORDERS)
    with pytest.raises(WarpError, match="--here"):
        verify.run(terminal.settings, terminal.assembly, ())
    with contextlib.suppress(SystemExit):
        assert verify.run(terminal.settings, terminal.assembly, (), wait=False) == startup.DONE
