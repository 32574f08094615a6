"""BigQuery as a source: a dataset is a namespace, a table a table.

There is no log that waits to be followed: tables are polled, each in its own way (`strategies`):
by a column of times (`warp.capture.timestamp`, through `capture`), by `comparison` with the last
run, or by the `history` that BigQuery keeps.  `snapshot` reads key ranges at one time; `reading` is
how rows get here, `columns` what they become, and `costs` what that bills.
"""

from warp.sources.bigquery.connector import BigQuerySource
from warp.sources.bigquery.options import BigQuerySourceOptions

__all__ = ["BigQuerySource", "BigQuerySourceOptions"]
