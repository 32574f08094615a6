"""Which rules are in force for a table, and who may work together by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from warp.assembly import Plugged
from warp.config import Settings, load
from warp.errors import ConfigError
from warp.model import Cover, MissingColumn, Privacy, TableId
from warp.privacy.source import CoveredSource

KEY = "the privacy key of the tests"


def settings(tmp_path: Path, key: str = KEY, **more: Any) -> Settings:
    file = tmp_path / "config.yaml"
    blocks = {
        "source": {"connection_string": "mongodb://localhost/crm"},
        "destination": {"connection_string": "postgresql://localhost/warehouse"},
        "schemas": [{"name": "crm"}, {"name": "open"}],
        "privacy": {"key": "${KEY}"},
    }
    file.write_text(yaml.safe_dump(blocks | more))
    return load(file, {"KEY": key})


def privacy_of(found: Settings, table: str, schema: str = "crm") -> Privacy | None:
    of_table = found.resolve(schema, [schema])(TableId(schema, table))
    assert of_table is not None
    return of_table.privacy


def test_rules_of_all_levels_are_added_and_the_nearest_wins(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        privacy={"key": "${KEY}", "columns": {"email": "hash", "phone": "drop"}},
        schemas=[
            {
                "name": "crm",
                "privacy": {"columns": {"phone": "mask", "name": "tokenise"}},
                "tables": {
                    "peop*": {"privacy": {"columns": {"name": "hash"}, "missing": "warn"}},
                    "people": {"privacy": {"columns": {"email": "keep", "ssn": "drop"}}},
                    "others": {},
                },
            }
        ],
    )
    people = privacy_of(found, "people")
    assert people is not None
    assert dict(people.rules) == {"phone": Cover.MASK, "name": Cover.HASH, "ssn": Cover.DROP}
    assert people.own == {"ssn"}
    assert people.missing is MissingColumn.WARN
    assert people.key == KEY.encode()
    others = privacy_of(found, "others")
    assert others is not None
    assert dict(others.rules) == {
        "email": Cover.HASH,
        "phone": Cover.MASK,
        "name": Cover.TOKENISE,
    }


def test_a_schema_without_rules_has_its_connector_as_it_is(tmp_path: Path) -> None:
    crm = {"name": "crm", "privacy": {"columns": {"email": "hash"}}}
    plugged = Plugged(settings(tmp_path, schemas=[crm, {"name": "open"}]))
    covered, plain = (
        plugged.source(name, lambda table: None)  # no connection is made for it
        for name in ("crm", "open")
    )
    assert isinstance(covered, CoveredSource)
    assert not isinstance(plain, CoveredSource)


def test_workers_with_other_rules_or_another_key_do_not_follow_one_stream(
    tmp_path: Path,
) -> None:
    rules = {"columns": {"email": "hash"}}
    crm = [{"name": "crm", "privacy": rules}]
    known = [
        settings(tmp_path),
        settings(tmp_path, schemas=crm),
        settings(tmp_path, schemas=crm, key="another key of the tests"),
        settings(tmp_path, schemas=[{"name": "crm", "privacy": {"columns": {"email": "mask"}}}]),
    ]
    assert len({one.follows(["crm"]) for one in known}) == 4
    assert len({one.digest for one in known}) == 4


def test_the_key_is_shown_nowhere(tmp_path: Path) -> None:
    found = settings(tmp_path, privacy={"key": "${KEY}", "columns": {"email": "hash"}})
    shown = [repr(found), repr(privacy_of(found, "people")), repr(found.effective)]
    assert [text for text in shown if KEY in text] == []
    assert KEY in found.secrets
    values = {each.path: each.value for each in found.effective}
    assert values["privacy.key"] == "***"
    assert values["privacy.columns.email"] == "hash"


def test_the_key_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    found = settings(
        tmp_path, privacy={"key_file": str(tmp_path / "key"), "columns": {"email": "hash"}}
    )
    people = privacy_of(found, "people")
    assert people is not None
    assert people.key == KEY.encode()


@pytest.mark.parametrize("path", ["_id", "_id.mail"])
def test_a_key_that_all_tables_share_is_neither_masked_nor_dropped(
    tmp_path: Path, path: str
) -> None:
    with pytest.raises(ConfigError, match="expected hash or tokenise for a key"):
        settings(tmp_path, privacy={"columns": {path: "mask"}})
