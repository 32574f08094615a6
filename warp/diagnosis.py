"""A look at a server before work starts, and what follows from it.  Pure.

`check` and `diagnose` of a connector read the same findings, so that `validate` never passes what
`doctor` calls failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from warp.errors import UnitFailed
from warp.model import Diagnosis, Verdict


def ok(code: str, subject: str, expected: str, found: str) -> Diagnosis:
    return Diagnosis(code, Verdict.OK, subject, expected, found)


def warning(code: str, subject: str, expected: str, found: str, mend: str) -> Diagnosis:
    return Diagnosis(code, Verdict.WARNING, subject, expected, found, mend)


def failed(code: str, subject: str, expected: str, found: str, mend: str) -> Diagnosis:
    return Diagnosis(code, Verdict.FAILED, subject, expected, found, mend)


def encryption(code: str, hosts: Iterable[str | None], encrypted: bool, mend: str) -> Diagnosis:
    """Does a connection to these hosts go in clear, where others may read along?"""
    expected = "a connection by TLS, or one that stays on this machine"
    if encrypted:
        return ok(code, "connection", expected, "TLS")
    far = sorted({host for host in hosts if host and not _is_here(host)})
    if not far:
        return ok(code, "connection", expected, "this machine")
    return warning(code, "connection", expected, f"{', '.join(far)} in clear", mend)


def _is_here(host: str) -> bool:
    if host == "localhost" or host.startswith(("/", "@")):  # a socket of PostgreSQL
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def refuse(found: Iterable[Diagnosis], error: type[UnitFailed], *, place: str = "") -> None:
    """Raise the first of them that keeps work from starting; warnings do not.

    `found` may be looked for one by one: nothing is asked of the server behind a failure.
    """
    for one in found:
        if one.verdict is Verdict.FAILED:
            raise error(
                f"expected {one.expected}, found {one.found}; {one.mend}",
                place=place or one.subject,
            )
