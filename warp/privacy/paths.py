"""Which rule a field falls under, by its path.  Pure.

A path names a column or field, and fields inside of it with dots; arrays are passed through.  A
name may have dots itself: `a.b` is the field `a.b` as well as the field `b` of `a`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from warp.model import Cover


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it is seen from inside of some field."""

    rest: str  # of the path, from here on
    cover: Cover
    path: str  # as it was written


Rules = tuple[Rule, ...]


def rules_of(said: Iterable[tuple[str, Cover]]) -> Rules:
    return tuple(Rule(path, cover, path) for path, cover in said)


def here(rules: Rules, name: str) -> tuple[Rule | None, Rules]:
    """The rule for the whole of a field, and those for what is inside of it."""
    whole = None
    inside: list[Rule] = []
    for rule in rules:
        if rule.rest == name:
            whole = rule
        elif rule.rest.startswith(name + "."):
            inside.append(Rule(rule.rest[len(name) + 1 :], rule.cover, rule.path))
    return whole, tuple(inside)


class Paths:
    """The rules at one level of a document, remembered by name: documents repeat their names."""

    __slots__ = ("_known", "_rules")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._known: dict[str, tuple[Rule | None, Paths | None]] = {}

    def paths(self) -> Iterator[str]:
        """As they were written."""
        return (rule.path for rule in self._rules)

    def at(self, name: str) -> tuple[Rule | None, Paths | None]:
        found = self._known.get(name)
        if found is None:
            whole, inside = here(self._rules, name)
            found = (whole, Paths(inside) if inside else None)
            if whole is not None or inside:  # others may be without number
                self._known[name] = found
        return found
