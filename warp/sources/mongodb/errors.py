"""What each MongoDB error means for the unit: wait, stop, read again, or the log is gone.

Every reaction was seen on a three-member set (MongoDB 6.0.5) except where a comment says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from warp.errors import PositionLost, SourceRefused, SourceUnavailable, WarpError
from warp.options import redact

FAILED_TO_PARSE: Final = 9
UNAUTHORIZED: Final = 13
OVERFLOW: Final = 15
AUTHENTICATION_FAILED: Final = 18
COMMAND_NOT_FOUND: Final = 59
NAMESPACE_NOT_FOUND: Final = 26
CURSOR_NOT_FOUND: Final = 43
CAPPED_POSITION_LOST: Final = 136
OPTION_NOT_SUPPORTED_ON_VIEW: Final = 166
SNAPSHOT_TOO_OLD: Final = 239
SNAPSHOT_UNAVAILABLE: Final = 246
INVALID_RESUME_TOKEN: Final = 260
CHANGE_STREAM_FATAL: Final = 280
CHANGE_STREAM_HISTORY_LOST: Final = 286
OBJECT_TOO_LARGE: Final = 10334
NOT_A_REPLICA_SET: Final = 40573  # "The $changeStream stage is only supported on replica sets"

STALE_SNAPSHOT: Final = frozenset({SNAPSHOT_TOO_OLD, SNAPSHOT_UNAVAILABLE})
"""Take a new version and read the chunk again."""

# The driver's list of what a new try mends (the "retryable reads" specification), and the ways an
# open cursor ends without fault of ours.
_TRANSIENT: Final = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        134,  # ReadConcernMajorityNotAvailableYet
        189,  # PrimarySteppedDown
        262,  # ExceededTimeLimit
        50,  # MaxTimeMSExpired
        9001,  # SocketException
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        63,  # StaleShardVersion
        150,  # StaleEpoch
        13388,  # StaleConfig
        234,  # RetryChangeStream
        133,  # FailedToSatisfyReadPreference
        237,  # CursorKilled
        175,  # QueryPlanKilled: the collection was dropped or renamed under the cursor
        11601,  # Interrupted
        112,  # WriteConflict
        CURSOR_NOT_FOUND,
    }
)


# What the handshake says of the certificate, or of an answer that is none.
_NOT_TRUSTED: Final = re.compile(
    r"certificate verify failed|CERTIFICATE_VERIFY_FAILED|SSL: WRONG_VERSION_NUMBER|"
    r"doesn't match|not valid for '"
)


def is_transient(error: PyMongoError) -> bool:
    """Does opening a new cursor at our own place mend it, with nothing lost?"""
    if isinstance(error, OperationFailure):
        return error.code in _TRANSIENT or error.has_error_label("ResumableChangeStreamError")
    return isinstance(error, AutoReconnect) and not isinstance(error, ServerSelectionTimeoutError)


def is_unauthorized(error: SourceRefused) -> bool:
    """Was it a right that was missing?"""
    cause = error.__cause__
    return isinstance(cause, OperationFailure) and cause.code == UNAUTHORIZED


def position_lost(place: str, why: str, oldest: str) -> PositionLost:
    """`oldest` says what the log still holds."""
    return PositionLost(
        f"the oplog was expected to reach back to the marker, found its start at {oldest} ({why}); "
        "changes in between are gone from the log: run `cartridge-warp recover SCHEMA`, which "
        "writes only rows that differ, or `cartridge-warp resync SCHEMA`, which reads all of them "
        "again, and make the oplog larger (replSetResizeOplog, oplogMinRetentionHours)",
        place=place,
    )


def translate(error: PyMongoError, doing: str) -> WarpError:
    """The error of ours that a driver's error is.  `doing` completes "could not …"."""
    # Behind these the driver prints its whole view of the servers, which helps nobody at night.
    said = redact(
        re.split(r", full error:|, Timeout: |\(configured timeouts: ", str(error))[0].strip()
    )
    if isinstance(error, OperationFailure):
        return _translate_failure(error, doing, said)
    if isinstance(error, ConfigurationError | InvalidURI):
        return SourceRefused(f"a valid connection string was expected; could not {doing}: {said}")
    if _NOT_TRUSTED.search(said):
        return SourceRefused(
            f"TLS as the connection string asks for it was expected; could not {doing}: {said}; "
            "correct tls and tlsCAFile, or the server's certificate"
        )
    if isinstance(error, ServerSelectionTimeoutError) and "replica set" in said.lower():
        return SourceUnavailable(
            f"a primary of the replica set in the connection string was expected; "
            f"could not {doing}: {said}"
        )
    return SourceUnavailable(
        f"a MongoDB that answers was expected; could not {doing}: {said}; start the server or "
        "correct the source's connection string"
    )


def _translate_failure(error: OperationFailure, doing: str, said: str) -> WarpError:
    code = error.code
    if code in (CHANGE_STREAM_HISTORY_LOST, CAPPED_POSITION_LOST):
        return position_lost("", f"error {code}", "an unknown time")
    if code == AUTHENTICATION_FAILED:
        return SourceRefused(
            f"a login that works was expected; could not {doing}: {said}; check user, password and "
            "authSource of the connection string"
        )
    if code == UNAUTHORIZED:
        return SourceRefused(
            f"the actions find, changeStream and listCollections were expected on the database; "
            f"could not {doing}: {said}; grant the role `read` on it"
        )
    if code == NOT_A_REPLICA_SET:
        return SourceRefused(
            f"a replica set or mongos was expected, found a standalone server, which has no "
            f"change streams; could not {doing}; start mongod with --replSet and run rs.initiate()"
        )
    if code in (FAILED_TO_PARSE, OVERFLOW, INVALID_RESUME_TOKEN):
        return SourceRefused(
            f"a resume token of this server was expected; could not {doing}: {said}; "
            "run `cartridge-warp resync SCHEMA`"
        )
    if is_transient(error) or code in STALE_SNAPSHOT:
        return SourceUnavailable(f"could not {doing}: {said}")
    return SourceRefused(f"could not {doing}: {said} (error {code})")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Errors of the driver inside leave as errors of ours."""
    try:
        yield
    except PyMongoError as error:
        raise translate(error, doing) from error
