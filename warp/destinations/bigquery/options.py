"""The `destination:` block of type bigquery."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from warp.bigquery_client import BigQueryOptions
from warp.model import TableId
from warp.options import Block, Count, PositiveDuration, Text, expected

MOST_CLUSTERED: Final = 4  # columns BigQuery clusters a table by


def _few(columns: list[str]) -> list[str]:
    if len(columns) > MOST_CLUSTERED:
        raise expected(f"at most {MOST_CLUSTERED} columns to cluster by")
    return columns


class Layout(Block):
    """How tables that are made anew lie on BigQuery's disks."""

    partition_by: Text | None = Field(
        default=None, description="a column of dates or times of the table"
    )
    granularity: Literal["HOUR", "DAY", "MONTH", "YEAR"] = Field(
        default="DAY", description="how long a partition is"
    )
    cluster_by: Annotated[list[Text], AfterValidator(_few)] | None = Field(
        default=None, description="columns to sort by, four at most; else the key"
    )


class BigQueryDestinationOptions(BigQueryOptions):
    """Everything `bigquery://project` and credentials do not say."""

    metadata_schema: Text = Field(
        default="cartridge_warp_metadata",
        description="dataset of the markers and the other bookkeeping",
    )
    staging_dataset: Text = Field(
        default="cartridge_warp_staging",
        description="dataset of what is loaded before it is merged; emptied by itself in two days",
    )
    layout: dict[str, Layout] = Field(
        default={},
        description="partitions and clustering by `dataset.table`, patterns allowed; first wins",
    )
    decimal_type: Literal["BIGNUMERIC", "NUMERIC"] = Field(
        default="BIGNUMERIC", description="type of decimal numbers: 38 digits and 38, or 29 and 9"
    )
    json_type: Literal["JSON", "STRING"] = Field(
        default="JSON",
        description="type of objects and arrays; JSON rounds numbers a double cannot hold",
    )
    staging_tables: Count = Field(
        default=8, description="staging tables a unit turns over, each good for 1,500 loads a day"
    )
    loads_per_day: Count = Field(
        default=100_000, description="load jobs of the whole project that may be spent in a day"
    )
    units: Count = Field(
        default=20, description="units at work at once, which share `loads_per_day`"
    )
    commit_timeout: PositiveDuration = Field(
        default=300.0, description="how long a load or a transaction may take"
    )

    def layout_of(self, place: TableId) -> Layout:
        for pattern, layout in self.layout.items():
            if fnmatchcase(str(place), pattern):
                return layout
        return Layout()
