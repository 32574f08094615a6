"""Spin, given the lease protocol a second time, finds what our own model finds.

`make spin` prints the same as a table.
"""

from __future__ import annotations

import pytest
from lease_model import LARGER
from lease_spin import Question, questions

pytestmark = pytest.mark.soak

ASKED = [pytest.param(one, id=one.name) for one in questions(LARGER)]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("one", ASKED)
def test_spin_and_the_model_agree(one: Question) -> None:
    spin, model = one.by_spin(), one.by_model()
    if one.live:
        # Asked differently: of Spin, whether a batch lands whatever happens after the last fault;
        # of the model, whether it can land.
        assert bool(spin.violation) == (model.stuck is not None)
        return
    assert (spin.violation, len(spin.trace)) == (model.violation, len(model.trace))
    if not model.violation:
        assert spin.states == model.states
