"""How BigQuery is reached: project, credentials, emulator; shared by its source and destination.

    access = Access(options, SourceRefused)
    access.client().query_and_wait("SELECT 1")        # REST
    access.reader(), access.writer()                  # the Storage APIs, over gRPC

Clients are made anew at each call and belong to whoever asked.  Importing this module needs none of
Google's packages; making a client does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from warp.errors import UnitFailed
from warp.options import ConnectorOptions, PositiveDuration, Secret, Text, expected

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud import bigquery
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient, BigQueryWriteClient

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
# `project`, or `example.com:project` of a domain's own.
_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DATASET: Final = re.compile(r"\w{1,1024}", re.ASCII)
_FORM: Final = "bigquery://project/dataset, with ?location=EU where the dataset is not in the US"
# gRPC refuses answers of more than 4 MB unless told otherwise; BigQuery's are larger.
_CHANNEL: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True, slots=True)
class Address:
    """What a connection string says."""

    project: str
    dataset: str | None = None
    location: str | None = None

    @staticmethod
    def parse(url: str) -> Address:
        """ValueError, which repeats nothing of it, where it cannot be read."""
        parts = urlsplit(url)
        dataset = unquote(parts.path.strip("/"))
        more = dict(parse_qsl(parts.query))
        location = more.pop("location", None)
        if (
            parts.scheme != "bigquery"
            or not _PROJECT.fullmatch(parts.netloc)
            or (dataset and not _DATASET.fullmatch(dataset))
            or more
        ):
            raise ValueError(_FORM)
        return Address(parts.netloc, dataset or None, location)


def _readable(value: SecretStr) -> SecretStr:
    try:
        Address.parse(value.get_secret_value())
    except ValueError:
        raise expected(_FORM) from None
    return value


class BigQueryOptions(ConnectorOptions):
    """What source and destination have in common; without further keys the credentials are those
    that Google's libraries find by themselves (application default credentials)."""

    connection_string: Annotated[Secret, AfterValidator(_readable)] = Field(description=_FORM)
    location: Text | None = Field(
        default=None,
        description="where queries run, such as `EU`; must be that of the datasets",
    )
    credentials_file: Path | None = Field(
        default=None, description="JSON key of a service account; else application default"
    )
    impersonate: Text | None = Field(
        default=None,
        description="e-mail of a service account to act as, by those credentials",
    )
    emulator_host: Text | None = Field(
        default=None,
        description="host:port of an emulator, spoken to without TLS and without credentials",
    )
    emulator_grpc: Text | None = Field(
        default=None, description="host:port of the emulator's Storage APIs"
    )
    connect_timeout: PositiveDuration = Field(
        default=4.0, description="how long one connection may take"
    )
    request_timeout: PositiveDuration = Field(
        default=60.0, description="how long one answer may take; a query is asked for again"
    )

    @property
    def address(self) -> Address:
        return Address.parse(self.url)

    @property
    def region(self) -> str | None:
        return self.location or self.address.location


@dataclass(frozen=True, slots=True)
class Access:
    """Makes clients; what cannot be read of the credentials is raised as `refused`."""

    options: BigQueryOptions
    refused: type[UnitFailed]
    _found: dict[str, Any] = field(default_factory=dict, repr=False)  # credentials, once found

    @property
    def project(self) -> str:
        return self.options.address.project

    @property
    def has_storage(self) -> bool:
        """Are there the Storage APIs?  An emulator may have none."""
        return self.options.emulator_host is None or self.options.emulator_grpc is not None

    def client(self) -> bigquery.Client:
        from google.cloud import bigquery

        options: dict[str, Any] = {}
        if self.options.emulator_host is not None:
            host = self.options.emulator_host
            options = {"api_endpoint": host if "://" in host else f"http://{host}"}
        client = bigquery.Client(
            self.project,
            credentials=self._credentials(),
            location=self.options.region,
            client_options=options,
        )
        _make_impatient(client._http, self.options.connect_timeout)
        return client

    def reader(self) -> BigQueryReadClient:
        from google.cloud.bigquery_storage_v1 import BigQueryReadClient
        from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
            BigQueryReadGrpcTransport as Transport,
        )

        if self.options.emulator_host is None:
            return BigQueryReadClient(credentials=self._credentials())  # type: ignore[no-untyped-call]
        return BigQueryReadClient(transport=Transport(channel=self._channel()))  # type: ignore[no-untyped-call]

    def writer(self) -> BigQueryWriteClient:
        from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
        from google.cloud.bigquery_storage_v1.services.big_query_write.transports import (
            BigQueryWriteGrpcTransport as Transport,
        )

        if self.options.emulator_host is None:
            return BigQueryWriteClient(credentials=self._credentials())  # type: ignore[no-untyped-call]
        return BigQueryWriteClient(transport=Transport(channel=self._channel()))  # type: ignore[no-untyped-call]

    def _channel(self) -> Any:
        import grpc

        if self.options.emulator_grpc is None:
            self._refuse("emulator_grpc, the emulator's Storage APIs", "none")
        return grpc.insecure_channel(self.options.emulator_grpc, options=_CHANNEL)

    def _credentials(self) -> Credentials:
        if "credentials" not in self._found:
            self._found["credentials"] = self._find_credentials()
        found: Credentials = self._found["credentials"]
        return found

    def _find_credentials(self) -> Any:
        import google.auth
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import GoogleAuthError
        from google.auth.impersonated_credentials import Credentials as Impersonated
        from google.oauth2.service_account import Credentials as Account

        if self.options.emulator_host is not None:
            return AnonymousCredentials()  # type: ignore[no-untyped-call]
        file = self.options.credentials_file
        try:
            found: Any
            if file is not None:
                found = Account.from_service_account_file(str(file), scopes=[_SCOPE])  # type: ignore[no-untyped-call]
            else:
                found, _ = google.auth.default(scopes=[_SCOPE])
        # Neither's words are repeated: they may quote the file (guarantee 10).
        except (OSError, ValueError, GoogleAuthError) as error:
            where = f"a key in {file}" if file else "application default credentials"
            self._refuse(where, f"none that can be read ({type(error).__name__})")
        if self.options.impersonate is None:
            return found
        return Impersonated(found, self.options.impersonate, [_SCOPE])  # type: ignore[no-untyped-call]

    def _refuse(self, wanted: str, found: str) -> NoReturn:
        raise self.refused(
            f"expected {wanted}, found {found}; set credentials_file to the JSON key of a service "
            "account, or run `gcloud auth application-default login`; for an emulator set "
            "emulator_host and emulator_grpc",
            place=f"bigquery://{self.project}",
        )


def _make_impatient(session: Any, connect_timeout: float) -> None:
    """Have connections take so long at most, however long an answer may take.

    The client knows one timeout for both, and a server that cannot be reached is to be told soon.
    """
    from requests.adapters import HTTPAdapter

    if session.is_mtls:  # whose adapter carries the certificate
        return
    adapter = HTTPAdapter()
    send: Any = adapter.send

    def soon(request: Any, **options: Any) -> Any:
        if isinstance(options.get("timeout"), int | float):
            options["timeout"] = (connect_timeout, options["timeout"])
        return send(request, **options)

    vars(adapter)["send"] = soon
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
