"""Starts local-bigquery, which pretends to be BigQuery, without the network and with a few mends.

Run by the emulator's own Python, never imported by ours:

    python bigquery_launcher.py install                     once, when the environment is built
    python bigquery_launcher.py serve --port … --data-dir …

DuckDB fetches the extensions that local-bigquery needs from the network; here they come from
wheels.  Where it refuses what BigQuery takes:

* a MERGE begins a transaction of its own, which DuckDB 1.5 answers by aborting the one around it,
  so that no MERGE worked inside BEGIN TRANSACTION;
* its PARSE_JSON takes one argument and not BigQuery's `wide_number_mode`;
* it takes the `=` of `SET tags = …` for a comparison, which JSON has none of, so that a row deleted
  beside a snapshot could not become a tombstone;
* it shows a read session the table as it is, whatever `snapshot_time` was asked for.

And where it spends its time, which was a fifth of a second of CPU for each statement: for each
table of each statement it reads a list of all columns and one of all tables there are, and for
each statement what functions in JavaScript and row policies there are (we have none); each
statement of a script is kept as a job of its own, in a database.

Its tables lie in DuckLake, which keeps their history, for FOR SYSTEM_TIME AS OF, and takes a tenth
of a second for a transaction.  Those of a project whose name begins with `plain-` lie in DuckDB
itself, without history, at a twentieth of that.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import duckdb

RESULTS = "_results"  # where answers of queries lie until they are read


def install() -> None:
    """Put the extensions where DuckDB looks for them: below HOME."""
    from duckdb_extensions import import_extension

    for extension in ("icu", "ducklake", "spatial"):
        import_extension(extension)


# --- what it refuses -----------------------------------------------------------------------------


def _in_transaction(cursor: Any) -> bool:
    """now() is the start of the transaction, so it stands still only inside of one."""

    def now() -> Any:
        return cursor.execute("SELECT epoch_us(now())").fetchone()

    first = now()
    time.sleep(0.002)
    return bool(first == now())


class _Cursor:
    """Refuses a nested BEGIN before DuckDB sees it, with the error that local-bigquery expects."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, statement: Any, *parameters: Any) -> Any:
        if statement == "BEGIN" and _in_transaction(self._cursor):
            raise duckdb.TransactionException("already in a transaction")
        return self._cursor.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


_MODE = re.compile(r",\s*wide_number_mode\s*=>\s*'\w+'")


def _but_in_assignments(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A rule about comparisons that leaves `UPDATE … SET column = value` alone."""
    from sqlglot import exp

    def rule(node: Any, context: Any) -> Any:
        if isinstance(node, exp.EQ) and isinstance(node.parent, exp.Update):
            return node
        return compare(node, context)

    return rule


_WHOLE = re.compile(r"SELECT \* FROM `[^`]*`")


def _keep_sessions_at_their_time() -> None:
    """What is read of a session is then the table as it was, however long the reading takes."""
    from local_bigquery.grpc import read

    create, parse, table = read.create_session, read.parse, read.table
    asked = threading.local()

    def create_session(request: Any) -> Any:
        session = request.read_session
        asked.at = None
        if not table(session.table)[0].startswith(_PLAIN):  # which have no history
            asked.at = session.table_modifiers.snapshot_time
        return create(request)

    def parse_as_of(statement: str) -> Any:
        if asked.at:
            moment = f" FOR SYSTEM_TIME AS OF TIMESTAMP '{asked.at.isoformat(sep=' ')}'"
            statement = _WHOLE.sub(lambda found: found[0] + moment, statement, count=1)
        return parse(statement)

    read.create_session = create_session
    read.parse = parse_as_of


# --- where it spends its time --------------------------------------------------------------------


class _Asking:
    """A job's cursor, which has no temporary tables yet: they are looked for among all there are,
    in every project, which is a fifth of the CPU of a job."""

    _TEMPORARY = "SELECT table_name FROM duckdb_tables() WHERE temporary"

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def sql(self, statement: str, *more: Any, **named: Any) -> Any:
        if statement == self._TEMPORARY:
            statement = "SELECT '' AS table_name WHERE FALSE"
        return self._cursor.sql(statement, *more, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class _Known:
    """What was asked about datasets and tables, until something of the dataset changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[Any, Any] = {}
        self._turn = 0

    def remembered(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asking(*what: Any) -> Any:
            if RESULTS in what:
                return ask(*what)
            key = (ask, what)
            with self._lock:
                if key in self._answers:
                    return self._answers[key]
                turn = self._turn
            answer = ask(*what)
            with self._lock:
                if turn == self._turn:  # else it may be of before a change
                    self._answers[key] = answer
            return answer

        return asking

    def forget(self, dataset: str | None = None) -> None:
        with self._lock:
            self._turn += 1
            self._answers = {
                key: answer
                for key, answer in self._answers.items()
                if dataset is not None and dataset not in key[1]
            }

    def changed_by(
        self, change: Callable[..., Any], dataset: Callable[..., str | None]
    ) -> Callable[..., Any]:
        def changing(*what: Any, **named: Any) -> Any:
            try:
                return change(*what, **named)
            finally:
                touched = dataset(*what)
                if touched != RESULTS:
                    self.forget(touched)

        return changing


_OBJECTS = """
    SELECT t.{kind}_name, '{what}', 0
    FROM {catalog}.ducklake_{kind} AS t JOIN {catalog}.ducklake_schema AS s USING (schema_id)
    WHERE s.schema_name = $1 AND t.{kind}_name = coalesce($2, t.{kind}_name)
        AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
"""
_LAKES = "SELECT 1 FROM {catalog}.ducklake_schema WHERE schema_name = $1 AND end_snapshot IS NULL"
_PLAIN = "plain-"


class _Catalog:
    """What there is, asked of one dataset or table and not of all."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._all_objects = database.objects
        self._attach = database._attach

    def attach(self, connection: Any, project: str) -> None:
        if project.startswith(_PLAIN):
            name = self._database.quote(project)
            connection.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {name}")
            self._database._attached.add(project)
        else:
            self._attach(connection, project)

    def projects(self) -> list[str]:
        return sorted(self._database._attached)

    def objects(self, project: str, dataset: str, table: str | None = None) -> list[Any]:
        """Name, sort and size, which is nothing here."""
        if project not in self._database._attached:
            return list(self._all_objects(project, dataset, table))
        if not project.startswith(_PLAIN):
            catalog = self._lake(project)
            parts = [
                _OBJECTS.format(catalog=catalog, kind=kind, what=kind.upper())
                for kind in ("table", "view")
            ]
            statement = " UNION ALL ".join(parts) + " ORDER BY 1"
            return list(self._database.fetch(statement, [dataset, table]))
        if table is not None and not self._answers(project, dataset, table):
            return []
        return list(self._all_objects(project, dataset, table))

    def datasets(self, project: str, dataset: str) -> bool:
        """Is there such a one?"""
        if project not in self._database._attached:
            return False
        if project.startswith(_PLAIN):
            return dataset in self._plain_datasets(project)
        return bool(self._database.fetch(_LAKES.format(catalog=self._lake(project)), [dataset]))

    def required(self, project: str, dataset: str, table: str) -> set[str]:
        place = self._database.quote(project, dataset, table)
        return {
            name for name, _, null, *_ in self._database.fetch(f"DESCRIBE {place}") if null == "NO"
        }

    def _lake(self, project: str) -> str:
        return str(self._database.quote(f"__ducklake_metadata_{project}"))

    def _plain_datasets(self, project: str) -> set[str]:
        found = self._database.fetch(
            "SELECT schema_name FROM duckdb_schemas() WHERE database_name = $1", [project]
        )
        return {name for (name,) in found}

    def _answers(self, project: str, dataset: str, table: str) -> bool:
        place = self._database.quote(project, dataset, table)
        try:
            self._database.execute(f"SELECT 1 FROM {place} LIMIT 0")
        except duckdb.CatalogException:
            return False
        return True


def _columns_of(catalog: _Catalog, database: Any, types: Any, tables: Any) -> Callable[..., Any]:
    def columns(project: str, dataset: str, table: str) -> list[Any]:
        place = tables.physical(project, dataset, table)
        with database.cursor() as cursor:
            try:
                relation = cursor.sql(f"SELECT * FROM {database.quote(*place)} LIMIT 0")
            except duckdb.CatalogException:
                raise tables.not_found("Table", f"{project}:{dataset}.{table}") from None
            required = set() if dataset == RESULTS else catalog.required(*place)
            return [
                types.field(name, type_, name in required)
                for name, type_ in zip(relation.columns, relation.types, strict=True)
            ]

    return columns


def _keep_jobs_in_memory(store: Any) -> None:
    kept: dict[tuple[str, str], Any] = {}

    def save(job: Any) -> Any:
        kept[job.jobReference.projectId, job.jobReference.jobId] = job
        return job

    def listed(
        project: str,
        states: list[str] | None = None,
        parent: str | None = None,
        earliest: int | None = None,
        latest: int | None = None,
    ) -> list[Any]:
        """The newest first."""
        found = [
            (-int(job.statistics.creationTime), id, job)
            for (of, id), job in list(kept.items())
            if of == project
            and job.statistics.parentJobId == parent
            and (states is None or job.status.state in states)
            and (earliest is None or int(job.statistics.creationTime) >= earliest)
            and (latest is None or int(job.statistics.creationTime) <= latest)
        ]
        return [job for *_, job in sorted(found, key=lambda one: one[:2])]

    def delete(project: str, job: str) -> None:
        for key, one in list(kept.items()):
            if key == (project, job) or (key[0] == project and one.statistics.parentJobId == job):
                del kept[key]

    store.save = save
    store.load = lambda project, job: kept.get((project, job))
    store.list_ = listed
    store.delete = delete


def _spend_less(known: _Known) -> None:
    from local_bigquery.catalog import datasets, metadata, row_access, tabledata, tables
    from local_bigquery.catalog import ddl as catalog_ddl
    from local_bigquery.engine import database, types
    from local_bigquery.jobs import store
    from local_bigquery.sql import js
    from local_bigquery.sql.rules import partitions

    catalog = _Catalog(database)
    database._attach = catalog.attach
    database.projects = catalog.projects
    database.objects = known.remembered(catalog.objects)
    datasets.exists = known.remembered(catalog.datasets)
    metadata.list_ = known.remembered(metadata.list_)
    columns = _columns_of(catalog, database, types, tables)
    tables.columns = tabledata.columns = known.remembered(columns)

    def of_keys(_: Any, *keys: str) -> str | None:
        return keys[1] if len(keys) > 1 else None

    metadata.save = known.changed_by(metadata.save, of_keys)
    metadata.delete = known.changed_by(metadata.delete, of_keys)
    tables.write = known.changed_by(tables.write, lambda *what: str(what[3][1]))
    catalog_ddl.apply = known.changed_by(catalog_ddl.apply, lambda *_: None)

    partitions._hidden = lambda table: False  # no table of ours is partitioned by its load's time
    row_access.secured = frozenset
    js.restore = lambda: None
    _keep_jobs_in_memory(store)


class _Text:
    """A statement that is parsed only where nobody has translated it before."""

    def __init__(self, text: str) -> None:
        self.text = text


_STAGED = re.compile(r"stage_[0-9a-f]+_\d+_[0-9a-f]+_[0-9a-f]+_\d+")


class _Translations:
    """Statements in DuckDB's words, by their text but for the names of staging tables, which are
    others with each batch, and by the columns of their tables."""

    def __init__(self, translate: Callable[[Any, Any], Any], columns: Callable[..., Any]) -> None:
        self._translate = translate
        self._columns = columns
        self._made: dict[Any, tuple[str, set[str], set[str]]] = {}
        self._tables: dict[Any, list[tuple[str, str, str]]] = {}

    def __call__(self, tree: Any, context: Any) -> tuple[str, dict[str, Any]]:
        text = tree.text if isinstance(tree, _Text) else tree.meta.get("text", "")
        if not text or "@@" in text or context.variables:
            return self._anew(tree, context)
        names = list(dict.fromkeys(_STAGED.findall(text)))
        alike = text
        for number, name in enumerate(names):
            alike = alike.replace(name, f"stage_{number}_")
        parameters = tuple(context.parameters.items())
        known = (alike, context.project_id, context.dataset_id, parameters)
        key = known if known not in self._tables else (known, *self._shapes(known, names))
        found = self._made.get(key)
        if found is None:
            tree = self._parsed(tree)
            before = set(context.temporary)
            sql, _ = self._anew(tree, context)
            self._tables[known] = self._named(tree, names)
            for number, name in enumerate(names):
                sql = sql.replace(name, f"stage_{number}_")
            found = sql, set(context.used), context.temporary - before
            self._made[(known, *self._shapes(known, names))] = found
        sql, used, temporary = found
        context.temporary |= temporary
        for number, name in enumerate(names):
            sql = sql.replace(f"stage_{number}_", name)
        return sql, {name: context.values[name] for name in used}

    def _anew(self, tree: Any, context: Any) -> tuple[str, dict[str, Any]]:
        made: tuple[str, dict[str, Any]] = self._translate(self._parsed(tree), context)
        return made

    @staticmethod
    def _parsed(tree: Any) -> Any:
        if not isinstance(tree, _Text):
            return tree
        import sqlglot
        from local_bigquery.sql.dialect import BigQueryDialect

        return sqlglot.parse_one(tree.text, dialect=BigQueryDialect)

    @staticmethod
    def _named(tree: Any, names: list[str]) -> list[tuple[str, str, str]]:
        from sqlglot import exp

        found = []
        for table in tree.find_all(exp.Table):
            if table.catalog and table.db:
                name = table.name
                if name in names:
                    name = f"stage_{names.index(name)}_"
                found.append((table.catalog, table.db, name))
        return found

    def _shapes(self, known: Any, names: list[str]) -> list[Any]:
        """The columns of the statement's tables; of one that is not there, nothing."""
        from local_bigquery.errors import BigQueryError

        shapes = []
        for project, dataset, table in self._tables[known]:
            for number, name in enumerate(names):
                table = name if table == f"stage_{number}_" else table
            try:
                columns = self._columns(project, dataset, table)
            except (BigQueryError, duckdb.Error):
                columns = []  # it is DuckDB that says so, when the statement runs
            shapes.append(tuple((one.name, one.type, one.mode) for one in columns))
        return shapes


def _translate_once(columns: Callable[..., Any]) -> None:
    from local_bigquery.jobs import merge, query
    from local_bigquery.sql import script
    from sqlglot import exp

    whole = (exp.Query, exp.Insert, exp.Update, exp.Delete)
    translations = _Translations(query.translate, columns)
    query.translate = merge.translate = script.translate = translations
    parse = script.parse

    def parse_and_keep(text: str) -> Any:
        trees = parse(text)
        # Other statements are taken apart and translated in pieces, each with this text.
        if len(trees) == 1 and isinstance(trees[0], whole):
            trees[0].meta["text"] = text
        return trees

    script.parse = parse_and_keep

    class Parser:
        @staticmethod
        def parse_one(text: str, dialect: Any) -> Any:
            return _Text(text)

    merge.sqlglot = Parser
    test = script.Interpreter.test

    def test_of(interpreter: Any, condition: str) -> Any:
        if condition.strip() == "@@row_count = 1":
            return interpreter.context.system.get("row_count") == 1
        return test(interpreter, condition)

    script.Interpreter.test = test_of


def serve() -> None:
    _keep_sessions_at_their_time()  # before anybody else knows the functions
    from local_bigquery.catalog import tables
    from local_bigquery.cli import main
    from local_bigquery.jobs import merge, query
    from local_bigquery.sql.rules import NODE_RULES, json

    _spend_less(_Known())
    _translate_once(tables.columns)
    NODE_RULES[NODE_RULES.index(json.equality)] = _but_in_assignments(json.equality)
    execute = query.execute

    def run_job(cursor: Any, project: Any, job: Any, config: Any, *more: Any, **named: Any) -> Any:
        plain = config.model_copy(update={"query": _MODE.sub("", config.query)})
        of_its_own = named.get("session") is None
        return execute(
            _Asking(cursor) if of_its_own else cursor, project, job, plain, *more, **named
        )

    query.execute = run_job
    run = merge.run
    merge.run = lambda cursor, tree, context: run(_Cursor(cursor), tree, context)
    main()


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install()
    else:
        serve()
