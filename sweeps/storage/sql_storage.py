"""A study in a database: Optuna's own storage and tables, written to in whole transactions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import orm

from sweeps.storage.optuna_private import OpenedRDBStorage, models, sql_session
from sweeps.storage.outages import StorageOutage, is_outage, outage_reason
from sweeps.storage.study_storage import StudyStorage

CONNECT_SECONDS = 10
"""A host that drops packets would otherwise block a command for minutes."""
LOCK_SECONDS = 60
"""How long to wait for a lock; readers such as `sweeps status` hold SQLite's for moments only."""
DEAD_SECONDS = 60
"""A connection is closed after this long without an answer from the other end."""
STATEMENT_SECONDS = 300
"""Limit of one statement. The longest of ours reads all trials of a study."""
IDLE_SECONDS = 900
"""The server ends a transaction that is idle for this long, to free its locks; a sampler takes far less."""
_POSTGRESQL = frozenset({"postgresql", "postgresql+psycopg", "postgresql+psycopg2"})
_TAKE_CONNECT_TIMEOUT = _POSTGRESQL | {
    f"{database}{driver}" for database in ("mysql", "mariadb") for driver in ("", "+pymysql", "+mysqldb")
}
_KEEP_ALIVE = {"idle": 20, "interval": 10, "count": 4}  # 20 + 4 x 10 = DEAD_SECONDS


def engine_options(url: str, *, for_reading: bool = False) -> dict[str, Any]:
    """Arguments of `create_engine` that limit how long a dead or locked database blocks a call."""
    options: dict[str, Any] = {"poolclass": sqlalchemy.NullPool} if for_reading else {}
    if url.startswith("sqlite"):
        return options | {"connect_args": {"timeout": LOCK_SECONDS}}
    if not for_reading:
        options |= {"pool_pre_ping": True, "pool_recycle": 1800}
    if (parts := parse_url(url)) is None:
        return options
    arguments: dict[str, Any] = {}
    if parts.drivername in _TAKE_CONNECT_TIMEOUT:
        arguments["connect_timeout"] = CONNECT_SECONDS
    if parts.drivername in _POSTGRESQL:
        arguments |= {"keepalives": 1, "tcp_user_timeout": DEAD_SECONDS * 1000}
        arguments |= {f"keepalives_{name}": value for name, value in _KEEP_ALIVE.items()}
        # Not in the driver's `options`, which connection poolers such as PgBouncer refuse.
        options["pool_events"] = [(_set_server_limits, "connect")]
    # Settings in the URL take precedence.
    options["connect_args"] = {name: value for name, value in arguments.items() if name not in parts.query}
    return options


def parse_url(url: str) -> sqlalchemy.engine.URL | None:
    """The parts of a URL; None for text that is none."""
    try:
        return sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None


def _set_server_limits(connection: Any, record: object) -> None:
    """Set time limits on the server, so that it frees the locks of a machine that vanished."""
    limits = {
        "lock_timeout": LOCK_SECONDS * 1000,
        "statement_timeout": STATEMENT_SECONDS * 1000,
        "idle_in_transaction_session_timeout": IDLE_SECONDS * 1000,
        **{f"tcp_keepalives_{name}": value for name, value in _KEEP_ALIVE.items()},
        "tcp_user_timeout": DEAD_SECONDS * 1000,
    }
    with connection.cursor() as cursor:
        # Names that the server does not know are skipped: set_config would fail for them.
        cursor.execute(
            "SELECT set_config(name, wanted.value, false) FROM pg_settings JOIN "
            "(VALUES " + ", ".join(f"('{name}', '{value}')" for name, value in limits.items()) + ") "
            "AS wanted(key, value) ON name = wanted.key"
        )
    connection.commit()


class SqlStudyStorage(OpenedRDBStorage, StudyStorage):
    """Optuna's database storage, with transactions around any number of its writes."""

    def __init__(self, url: str, *, for_reading: bool = False) -> None:
        """Raises SQLAlchemy's and the driver's errors."""
        super().__init__(url, engine_kwargs=engine_options(url, for_reading=for_reading))
        self._in_transaction = False
        sqlalchemy.event.listen(self.engine, "handle_error", self._end_transaction_at_once)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Optuna commits each attribute and value by itself: slow, and a crash leaves a trial half written.

        Inside, the storage uses one connection.
        """
        own = self.scoped_session
        with self.engine.connect() as connection, connection.begin() as opened:
            self.scoped_session = orm.scoped_session(
                orm.sessionmaker(bind=connection, join_transaction_mode="rollback_only")
            )
            self._in_transaction = True
            try:
                yield
            finally:
                self._in_transaction = False
                self.scoped_session.remove()
                self.scoped_session = own
            if not opened.is_active:  # leaving now would commit nothing and raise nothing
                raise StorageOutage("the database rolled the transaction back")

    def _end_transaction_at_once(self, context: sqlalchemy.engine.ExceptionContext) -> None:
        """Optuna would repeat some writes, seconds apart, although the transaction is lost."""
        error = context.sqlalchemy_exception or context.original_exception
        if self._in_transaction and is_outage(error):
            raise StorageOutage(outage_reason(error)) from context.original_exception

    def exchange_study_attr(self, study_id: int, key: str, old: str | None, new: str) -> bool:
        """One statement, which also takes the database's write lock until the transaction ends."""
        table = models.StudyUserAttributeModel
        with sql_session(self.scoped_session) as session:
            if old is None:
                absent = session.query(table).filter_by(study_id=study_id, key=key).first() is None
                if absent:
                    session.add(table(study_id=study_id, key=key, value_json=json.dumps(new)))
                    session.flush()  # IntegrityError if another process has just added the row
                return absent
            replaced = (
                sqlalchemy.update(table)
                .where(table.study_id == study_id, table.key == key, table.value_json == json.dumps(old))
                .values(value_json=json.dumps(new))
                .execution_options(synchronize_session=False)
            )
            result = session.execute(replaced)
            return bool(getattr(result, "rowcount", 0) == 1)

    def add_intermediate_values(self, values: Sequence[tuple[int, int, float]]) -> None:
        """In one statement."""
        model = models.TrialIntermediateValueModel
        rows = []
        for trial_id, step, value in values:
            number, kind = model.intermediate_value_to_stored_repr(value)
            row = {"trial_id": trial_id, "step": step}
            rows.append({**row, "intermediate_value": number, "intermediate_value_type": kind})
        self._insert(model, rows)

    def add_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """In one statement."""
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in attributes.items()
        ]
        self._insert(models.TrialUserAttributeModel, rows)

    def close(self) -> None:
        self.remove_session()
        self.engine.dispose()

    def _insert(self, model: type, rows: list[dict[str, Any]]) -> None:
        if rows:
            with sql_session(self.scoped_session) as session:
                session.execute(sqlalchemy.insert(model), rows)
