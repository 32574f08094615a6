"""Connector classes for tests of the configuration, which need only their options."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from pydantic import Field

from warp import plugins
from warp.interfaces import DestinationTraits, SourceTraits
from warp.options import ConnectorOptions, Count, Text


class SourceOptions(ConnectorOptions):
    read_ahead: Count = Field(default=2, description="batches read before they are asked for")


class DestinationOptions(ConnectorOptions):
    metadata_schema: Text = "cartridge_warp_metadata"


class FakeSource:
    Options = SourceOptions
    traits = SourceTraits()


class FakeDestination:
    Options = DestinationOptions
    traits = DestinationTraits()


class FakeBigQuery(FakeDestination):
    traits = DestinationTraits(sizes_batches=True)


INSTALLED = {
    "cartridge_warp.sources": {"mongodb": "FakeSource", "mysql": "FakeSource"},
    "cartridge_warp.destinations": {
        "postgresql": "FakeDestination",
        "bigquery": "FakeBigQuery",
    },
}


@pytest.fixture
def fake_connectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The connectors of this module are the installed ones."""

    def entry_points(group: str) -> list[EntryPoint]:
        return [EntryPoint(n, f"config_fakes:{c}", group) for n, c in INSTALLED[group].items()]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    plugins.forget()
    yield
    plugins.forget()
