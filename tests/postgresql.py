"""A real PostgreSQL server of the tests' own, from the machine's packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


class NoPostgreSQL(Exception):
    """There is no server to be had on this machine, and why."""


class PostgreSQL:
    """A server of the tests' own: a cluster in a temporary folder, on loopback, to be stopped and started."""

    def __init__(self, binaries: Path, folder: Path, become: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.folder = folder
        self._binaries, self._become = binaries, become
        self._num_databases = 0
        self._run("initdb", "-D", folder / "data", "-U", "sweeper", "-A", "trust", "--no-sync")

    @property
    def url(self) -> str:
        """Of the database that is there from the beginning; the password is never asked for."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg://sweeper:hush@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        import psycopg

        self._num_databases += 1
        name = f"study{self._num_databases}"
        login = f"host=127.0.0.1 port={self.port} user=sweeper dbname=postgres"
        with closing(psycopg.connect(login, autocommit=True)) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._control("-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """`fast` ends all connections in order; `immediate` is as good as pulling the plug."""
        self._control("-w", "-m", mode, "stop")

    def _control(self, *arguments: str | Path) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", *arguments)

    def _run(self, program: str, *arguments: str | Path) -> None:
        # A server that was started keeps the outputs it is given, so a pipe would never end.
        with open(self.folder / "output", "w+b") as output:
            command = [*self._become, str(self._binaries / program), *map(str, arguments)]
            done = subprocess.run(command, cwd=self.folder, stdout=output, stderr=output, timeout=120)
            output.seek(0)
            assert done.returncode == 0, output.read().decode(errors="replace")


def _postgresql_binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        folders.insert(0, Path(found).resolve().parent)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@contextmanager
def running_server() -> Iterator[PostgreSQL]:
    """A server that is gone afterwards. Raises NoPostgreSQL."""
    binaries = _postgresql_binaries()
    if binaries is None:
        raise NoPostgreSQL("PostgreSQL is not installed; tests/system-packages.sh does it on Debian")
    become: list[str] = []
    # Short, because a socket's path may have no more than 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        if os.geteuid() == 0:
            if shutil.which("runuser") is None:
                raise NoPostgreSQL("postgres refuses root, and there is no runuser to become someone else")
            become = ["runuser", "-u", "nobody", "--"]
            shutil.chown(folder, "nobody")
        server = PostgreSQL(binaries, folder, become)
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
