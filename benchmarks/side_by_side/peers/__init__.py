"""Others that do the same work, each in a virtual environment of its own, at a pinned version.

A version is the newest whose package carries all it runs; some later ones fetch a program on
first use, from where a machine without internet cannot.
"""

from __future__ import annotations

from benchmarks.side_by_side.peers.debezium import Debezium
from benchmarks.side_by_side.peers.dlt import Dlt
from benchmarks.side_by_side.peers.ingestr import Ingestr
from benchmarks.side_by_side.peers.mysql_replication import MysqlReplication
from benchmarks.side_by_side.peers.peer import Peer
from benchmarks.side_by_side.peers.sling import Sling

PEERS: tuple[type[Peer], ...] = (Ingestr, Sling, Debezium, Dlt, MysqlReplication)
