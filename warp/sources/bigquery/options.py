"""The `source:` block of type `bigquery`."""

from __future__ import annotations

from pydantic import Field

from warp.bigquery_client import BigQueryOptions
from warp.options import Duration, PositiveDuration, Size, Text


class BigQuerySourceOptions(BigQueryOptions):
    """The `source:` block of type `bigquery`."""

    keys: dict[Text, tuple[Text, ...]] = Field(
        default={},
        description="columns that are the key of a table which declares none, by `table` or "
        "`dataset.table`: `{orders: [id]}`",
    )
    appended: list[Text] = Field(
        default=[],
        description="tables, by name or `dataset.table`, to which rows are only ever added: with "
        "`strategy: log` they are read by APPENDS() and need no change history",
    )
    maximum_bytes_billed: Size | None = Field(
        default=None, description="what no single query may exceed; it is refused, not billed"
    )
    scan_limit: Size = Field(
        default=100 * 10**9,
        description="bytes that the chunks of one table may scan together, where it is not "
        "clustered by its key and so each chunk scans all of it",
    )
    storage_api: bool = Field(
        default=True, description="read rows by the Storage Read API; else page by page over REST"
    )
    history_delay: Duration = Field(
        default=600.0, description="CHANGES() says nothing of the last ten minutes"
    )
    time_travel: PositiveDuration | None = Field(
        default=None,
        description="how far back the tables may be read; the dataset says it where not given",
    )
