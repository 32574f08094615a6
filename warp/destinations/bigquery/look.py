"""What a BigQuery project must be and allow, and what mends what is not so."""

from __future__ import annotations

from warp.destinations.bigquery import names, verdicts
from warp.destinations.bigquery.session import Session, Told
from warp.destinations.bigquery.verdicts import Verdict
from warp.diagnosis import failed, ok, warning
from warp.model import Diagnosis


def look(session: Session, namespace: str | None) -> list[Diagnosis]:
    """The project, the metadata's dataset, and the dataset `namespace` where it is known."""
    found: list[Diagnosis] = []
    with session.meaning("looking at the destination"):
        found.append(_queries(session))
        if found[0].verdict.value == "failed":
            return found
        datasets = [session.options.metadata_schema, session.options.staging_dataset]
        if namespace is not None:
            datasets.append(names.dataset(namespace))
        found += [_dataset(session, name) for name in dict.fromkeys(datasets)]
    return found


def _queries(session: Session) -> Diagnosis:
    expected = "the right to run jobs (bigquery.jobs.create)"
    subject = f"project {session.project}"
    try:
        session.dry_run("SELECT 1")
    except Told as told:
        if told.verdict not in (Verdict.DENIED, Verdict.REFUSED, Verdict.GONE):
            raise
        mend = verdicts.advice(told.message) or verdicts.RIGHTS
        return failed("bigquery-jobs", subject, expected, told.message, mend)
    return ok("bigquery-jobs", subject, expected, "given")


def _dataset(session: Session, name: str) -> Diagnosis:
    code, subject = "bigquery-dataset", f"dataset {name}"
    try:
        found = session.dataset(name)
    except Told as told:
        if told.verdict is not Verdict.DENIED:
            raise
        return failed(code, subject, "the right to read the dataset", told.message, verdicts.RIGHTS)
    if found is None:
        expected = "a dataset, or the right to make it (bigquery.datasets.create)"
        return ok(code, subject, expected, "none yet; it is made with the first table")
    region = session.options.region
    if region and found.location and found.location.upper() != region.upper():
        return failed(
            code,
            subject,
            f"a dataset in {region}",
            f"one in {found.location}",
            f"set location to {found.location}: one query does not reach into two regions",
        )
    if found.default_table_expiration_ms and name != session.options.staging_dataset:
        return warning(
            code,
            subject,
            "tables that stay",
            "a default expiration, after which they are gone",
            f"ALTER SCHEMA {names.quoted(name)} SET OPTIONS (default_table_expiration_days = NULL)",
        )
    return ok(code, subject, "a dataset where queries run", found.location or "found")
