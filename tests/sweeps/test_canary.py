"""A storage password that is watched for through whole runs, good and failed: it may stand nowhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import optuna
import psutil
import pytest

from sweeps.fleet.endpoints import SECRET_PREFIX, SECRET_SUFFIX
from tests.postgresql import PostgreSQL

ROOT = Path(__file__).parent.parent.parent
CANARY = f"canary{token_hex(6)}".encode()
"""Of this run of the tests: the command lines of all processes are looked at."""
PASSWORD = "x%2F" + CANARY.decode() + "%40"
"""With quoted characters: what a driver is given is not what the URL says."""
VARIABLE = "CANARY_STORAGE"
LOOK_SECONDS = 0.5
SWEEP = """\
name: {name}
model: {{name: /nowhere, size: 8e9}}
data: {{train: /nowhere.jsonl}}
training: {{max_steps: 40}}
search: {{sampler: random, pruner: none, seed: 3}}
reliability: {{lease_seconds: 10, outage_seconds: 2, keep_adapters: 2}}
tracking: {{to: [tensorboard, mlflow]}}
trials: {trials}
seats: 3
workers: 1
storage: env:CANARY_STORAGE
output: {output}
"""


@dataclass
class Watched:
    """What a run said, left behind, and showed while it ran."""

    code: int
    said: bytes
    leaks: set[str] = field(default_factory=set)
    secrets_seen: int = 0


class Place:
    """Folders of a run's own: its temporary files, Ray's session, its run folders."""

    def __init__(self, folder: Path, ray: Path) -> None:
        self.folder, self.ray, self.temporary = folder, ray, folder / "tmp"
        self.temporary.mkdir()

    def environment(self, url: str) -> dict[str, str]:
        return os.environ | {
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
            "RAY_TMPDIR": str(self.ray),
            VARIABLE: url,
        }

    def write(self, name: str, trials: int = 6) -> Path:
        file = self.folder / f"{name}.yaml"
        file.write_text(SWEEP.format(name=name, trials=trials, output=self.folder / "runs"))
        return file

    def secrets(self) -> list[Path]:
        return list(self.temporary.glob(f"{SECRET_PREFIX}*{SECRET_SUFFIX}"))

    def files_with_canary(self) -> Iterator[str]:
        secrets = set(self.secrets())
        for top in (self.folder, self.ray):
            # Not rglob: it fails on a folder that goes while it is walked, as Ray's and tokenizers' do.
            for folder, _, files in os.walk(top):
                for path in (Path(folder, file) for file in files):
                    with contextlib.suppress(OSError):  # come and gone
                        if path not in secrets and path.is_file() and CANARY in path.read_bytes():
                            yield str(path)

    def watch(
        self, *command: str, url: str, during: Mapping[bytes, Callable[[], None]] | None = None
    ) -> Watched:
        """Run a command to its end, looking at its files and at every process's command line meanwhile."""
        log = self.folder / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self.environment(url),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        watched = Watched(code=0, said=b"")
        todo = dict(during or {})
        deadline = time.monotonic() + 240
        try:
            while process.poll() is None:
                assert time.monotonic() < deadline, log.read_text()
                self._look(watched)
                for sign in [sign for sign in todo if sign in log.read_bytes()]:
                    todo.pop(sign)()
                time.sleep(LOOK_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._look(watched)
        watched.code, watched.said = process.returncode, log.read_bytes()
        watched.leaks |= set(self.files_with_canary())
        assert self.secrets() == []
        return watched

    def _look(self, watched: Watched) -> None:
        for secret in self.secrets():
            with contextlib.suppress(FileNotFoundError):
                mode = secret.stat().st_mode & 0o777
                if mode != 0o600:
                    watched.leaks.add(f"{secret} has mode {mode:o}")
                watched.secrets_seen += CANARY in secret.read_bytes()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(CANARY.decode() in word for word in process.cmdline()):
                    watched.leaks.add(f"command line of {process.name()}")
        watched.leaks |= {f"meanwhile {path}" for path in self.files_with_canary()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    ray = Path(tempfile.mkdtemp(prefix="c"))  # short: Ray's sockets lie below it
    try:
        yield Place(tmp_path, ray)
    finally:
        shutil.rmtree(ray, ignore_errors=True)


def with_password(url: str) -> str:
    return url.replace(":hush@", f":{PASSWORD}@")


def test_the_watch_sees_a_password_where_it_may_not_be(place: Place) -> None:
    leak = place.temporary / "leak.pkl"
    written = f"open({str(leak)!r}, 'w').write({CANARY.decode()!r}); print({CANARY.decode()!r})"
    script = f"import time; {written}; time.sleep(1)"
    watched = place.watch("-c", script, url="")
    assert str(leak) in watched.leaks
    assert any(said.startswith("command line of") for said in watched.leaks)
    assert CANARY in watched.said


@pytest.mark.slow
def test_a_good_run_shows_its_storage_password_nowhere(place: Place, postgresql: PostgreSQL) -> None:
    url = with_password(postgresql.new_database())
    file = place.write("good")
    watched = place.watch("-m", "tests.chaos.driver", str(file), url=url)
    assert watched.code == 0, watched.said.decode()
    assert watched.secrets_seen > 0  # the watch saw the one place where it may be
    assert watched.leaks == set()
    run = place.folder / "runs" / "good"
    for name in ("report.html", "trials.csv", "sweep.yaml"):
        assert (run / name).is_file()
    assert any(place.ray.rglob("*.log"))
    assert any(run.rglob("events.out.tfevents*"))
    for verb in (["verdict"], ["results", "--csv"]):
        after = place.watch("-m", "sweeps", verb[0], str(run), *verb[1:], url=url)
        assert (after.code, after.leaks, CANARY in after.said) == (0, set(), False), after.said.decode()


@pytest.mark.slow
def test_a_run_whose_storage_goes_away_shows_its_password_nowhere(
    place: Place, postgresql: PostgreSQL
) -> None:
    url = with_password(postgresql.new_database())
    watched = place.watch(
        "-m",
        "tests.chaos.driver",
        str(place.write("away", trials=200)),
        url=url,
        during={b"trial 0:": postgresql.stop},
    )
    assert watched.code == 1, watched.said.decode()
    assert b"the storage was away" in watched.said
    assert watched.leaks == set()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["port", "host", "database", "driver", "study", "no url", "query"])
def test_a_refused_run_shows_its_storage_password_nowhere(
    place: Place, postgresql: PostgreSQL, fault: str
) -> None:
    plain = postgresql.new_database()
    url = with_password(plain)
    if fault == "study":
        storage = optuna.storages.RDBStorage(plain)
        study = optuna.create_study(storage=storage, study_name="refused")
        study.set_user_attr("identity", {"metric": "other"})
        storage.engine.dispose()
    url = {
        "port": url.replace(f":{postgresql.port}/", ":1/"),
        "host": url.replace("127.0.0.1", "no.such.host.invalid"),
        "database": url.rpartition("/")[0] + "/nowhere",
        "driver": url.replace("+psycopg", "+nodriver"),
        "no url": CANARY.decode(),
        "query": f"{plain}?password={CANARY.decode()}&nosuchoption=1",
    }.get(fault, url)
    watched = place.watch("-m", "tests.chaos.driver", str(place.write("refused")), url=url)
    assert watched.code == 2, watched.said.decode()
    assert watched.said.startswith(b"error: ")
    assert CANARY not in watched.said
    assert watched.leaks == set()
    assert not (place.folder / "runs").exists()
