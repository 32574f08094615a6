"""`docs/guarantees-matrix.md` says what the markers of the tests say."""

from __future__ import annotations

import ast
import re

import guarantees_matrix as matrix
import pytest


def test_the_page_is_current() -> None:
    assert matrix.PAGE.read_text() == matrix.page(), (
        "run: python tests/guarantees_matrix.py > docs/guarantees-matrix.md"
    )


def test_every_fault_has_a_meaning_and_every_meaning_a_guarantee() -> None:
    asked = {fault for faults in matrix.FAULTS.values() for fault in faults}
    assert asked == matrix.MEANINGS.keys()


def test_every_guarantee_is_shown_by_a_test() -> None:
    assert {claim.guarantee for claim in matrix.claims()} == set(range(1, 11))


def test_a_test_that_is_in_no_file_is_in_no_cell() -> None:
    names = set(re.findall(r"test_\w+|Test\w+", " ".join(map(str, matrix.claims().values()))))
    files = [*(matrix.ROOT / "tests").rglob("test_*.py"), *matrix.CONTRACTS]
    text = "".join(file.read_text() for file in files)
    assert [name for name in names if f"def {name}(" not in text] == []


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ('guarantee=11, source="none", destination="mariadb", fault="error"', "found 11"),
        ('guarantee=1, source="oracle", destination="mariadb", fault="error"', "'oracle'"),
        ('guarantee=1, source="none", destination="kafka", fault="error"', "'kafka'"),
        ('guarantee=1, source="none", destination="mariadb", fault="drift"', "'drift'"),
        ('guarantee=3, source="mongodb", destination="mariadb", fault="no fault"', "its oplog by"),
        ('guarantee=1, source="none", destination="mariadb"', "expected guarantee, source"),
        ('1, source="none", destination="mariadb", fault="error"', "expected holds"),
        (
            'guarantee=1, source="none", destination="mariadb", fault="error", by="test_no_case"',
            "expected a case",
        ),
    ],
)
def test_a_marker_that_has_no_place_on_the_page_is_refused(marker: str, told: str) -> None:
    text = f"@pytest.mark.holds({marker})\ndef test_it() -> None: ..."

    def read() -> None:
        for node, call in matrix._marked(ast.parse(text)):
            list(matrix._read(call, node.name, "test_it.py"))

    with pytest.raises(matrix.MarkerWrong, match=told):
        read()
