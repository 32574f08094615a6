"""BigQuery as a destination."""

from warp.destinations.bigquery.connector import BigQueryDestination
from warp.destinations.bigquery.options import BigQueryDestinationOptions

__all__ = ["BigQueryDestination", "BigQueryDestinationOptions"]
