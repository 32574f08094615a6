"""How BigQuery is reached: what a connection string may say, and that no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from warp.bigquery_client import Access, Address, BigQueryOptions
from warp.errors import DestinationRefused, SourceRefused


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("bigquery://my-project", Address("my-project")),
        ("bigquery://my-project/shop", Address("my-project", "shop")),
        ("bigquery://my-project/shop?location=EU", Address("my-project", "shop", "EU")),
        ("bigquery://example.com:my-project/shop", Address("example.com:my-project", "shop")),
    ],
)
def test_a_connection_string_names_project_dataset_and_location(url: str, address: Address) -> None:
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "bigquery://",
        "postgresql://my-project/shop",
        "bigquery://user:secret@host/x",
        "bigquery://p/a b",
    ],
)
def test_another_one_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError, match="bigquery://project/dataset") as caught:
        BigQueryOptions.model_validate({"connection_string": url})
    assert "secret" not in str(caught.value)


def test_the_location_of_its_own_key_is_stronger_than_that_of_the_url() -> None:
    options = BigQueryOptions.model_validate(
        {"connection_string": "bigquery://p/shop?location=EU", "location": "US"}
    )
    assert options.region == "US"


@pytest.mark.parametrize("refused", [SourceRefused, DestinationRefused])
def test_a_key_that_cannot_be_read_says_what_to_do_and_nothing_of_the_key(
    tmp_path: Path, refused: type[SourceRefused | DestinationRefused]
) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"type": "service_account", "private_key": "very secret"}))
    options = BigQueryOptions.model_validate(
        {"connection_string": "bigquery://p/shop", "credentials_file": str(file)}
    )
    access = Access(options, refused)
    with pytest.raises(refused, match="set credentials_file") as caught:
        access.client()
    assert "very secret" not in f"{caught.value!r} {access!r} {caught.value.__cause__!r}"


def test_an_emulator_needs_no_credentials_and_may_lack_the_storage_apis() -> None:
    options = BigQueryOptions.model_validate(
        {"connection_string": "bigquery://p/shop", "emulator_host": "127.0.0.1:1"}
    )
    access = Access(options, SourceRefused)
    assert not access.has_storage
    with pytest.raises(SourceRefused, match="emulator_grpc"):
        access.reader()
    access.client().close()  # type: ignore[no-untyped-call]
