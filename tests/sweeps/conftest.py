"""A study spec without a model, a database, and a simulated pack that calls a keeper as a worker does."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from lora_runner.config import TrialConfig
from lora_runner.protocol import COMPLETE, Assignment, SeatReport
from search_spaces import load_guidelines, space_for
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.config.sections.search import SearchSection
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.protocol import Reply
from sweeps.plan.specs import CheckpointSize, StudySpec
from sweeps.storage.open_storage import open_storage
from sweeps.study.lease import DriverProcess, Lease

Loss = Callable[[TrialConfig, int], float | str]
"""(config, percent) -> evaluation loss, or the outcome with which the trial ends by itself there."""


def bowl(config: TrialConfig, percent: int) -> float:
    """Lowest at a rate of 1e-3, falling over the budget."""
    distance = (
        abs(config.learning_rate / 1e-3 - 1)
        if config.learning_rate > 1e-3
        else 1e-3 / config.learning_rate - 1
    )
    return 2.0 + min(distance, 9.0) / 10 + 1.0 / percent


def build_study_spec(
    folder: Path,
    *,
    trials: int = 6,
    report_at: tuple[int, ...] = (20, 40, 60, 80, 100),
    reliability: ReliabilitySection | None = None,
    measure_unquantized: bool = False,
    checkpoint_size: CheckpointSize | None = None,
    **search: Any,
) -> StudySpec:
    """A study spec over the guideline space of an 8B model, with its conditional dimension."""
    space = space_for(scenario="general", model_size=8.03e9, max_steps=100, train_embeddings=True)
    return StudySpec(
        name="t",
        run_folder=str(folder),
        space=space,
        trials=trials,
        search=SearchSection(**search).model_dump(),
        report_at=report_at,
        constants={
            "max_steps": 100,
            "per_device_train_batch_size": 8,
            "lora_r": 8,
            "lora_alpha": 16,
            "seed": 0,
        },
        scheduler_kwargs={},
        identity={"metric": "eval_loss", "space": space.fingerprint()},
        context={
            "model": "base",
            "model_size": 8.03e9,
            "scenario": "general",
            "method": "qlora",
            "train_embeddings": True,
            "max_steps": 100,
            "alpha_convention": "alpha/r",
            "per_device_train_batch_size": 8,
        },
        guidelines=load_guidelines().to_list(),
        versions={"optuna": optuna.__version__},
        reliability=reliability or ReliabilitySection(),
        measure_unquantized=measure_unquantized,
        checkpoint_size=checkpoint_size or CheckpointSize(),
    )


class SimulatedPack:
    """A worker's side of the conversation, without training: every turn, every seat reports once."""

    def __init__(self, keeper: Keeper, loss: Loss = bowl, *, seats: int = 3, worker: int = 0) -> None:
        self.keeper, self.loss, self.worker, self.num_seats = keeper, loss, worker, seats
        self.report_at = keeper.study_spec.report_at
        self.seats: dict[int, Assignment] = {}
        self.turns: dict[int, int] = {}
        self.stopped = False

    @property
    def free(self) -> list[int]:
        return [seat for seat in range(self.num_seats) if seat not in self.seats]

    def ask(self) -> Reply:
        self.keeper.prefetch(self.worker, self.num_seats)
        return self.follow(self.keeper.ask(self.worker, self.free))

    def follow(self, reply: Reply) -> Reply:
        for number in (*reply.leave, *reply.freeze):
            self.seats = {seat: a for seat, a in self.seats.items() if a.number != number}
        for placed in reply.start:
            assert placed.seat not in self.seats, f"seat {placed.seat} is taken"
            self.seats[placed.seat] = placed.assignment
            self.turns[placed.assignment.number] = 0
        if reply.start:
            self.keeper.prefetch(self.worker)
        self.stopped = self.stopped or reply.stop
        return reply

    def reports(self) -> list[SeatReport]:
        """The next report of every seat; trials that end by themselves leave."""
        reports = []
        for seat, assignment in sorted(self.seats.items()):
            percent = self.report_at[self.turns[assignment.number]]
            self.turns[assignment.number] += 1
            answer = self.loss(assignment.config, percent)
            outcome = answer if isinstance(answer, str) else COMPLETE if percent == 100 else None
            reports.append(
                make_report(assignment, percent, None if isinstance(answer, str) else answer, outcome)
            )
            if outcome is not None:
                del self.seats[seat]
        return reports

    def turn(self) -> Reply:
        return self.follow(self.keeper.report(self.worker, self.reports(), self.free, 100.0))

    def run(self) -> None:
        if not self.seats:
            self.ask()
        while self.seats and not self.stopped:
            self.turn()


def make_report(
    assignment: Assignment, percent: int, loss: float | None, outcome: str | None = None, **fields: Any
) -> SeatReport:
    values: dict[str, Any] = {
        "number": assignment.number,
        "attempt": assignment.attempt,
        "percent": percent,
        "step": percent,
        "eval_loss": loss,
        "train_loss": 1.5,
        "grad_norm": 0.5,
        "learning_rate": assignment.config.learning_rate,
        "num_tokens": 100 * percent,
        "tokens_per_second": 50.0,
        "wall_seconds": 2.0 * percent,
        "peak_memory_gib": 0.25,
        "outcome": outcome,
        "stop_reason": None if outcome is None else f"it was {outcome}",
    }
    return SeatReport(**(values | fields))


def drawn(keeper: Keeper) -> dict[int, dict[str, Any]]:
    """Parameters by number of all trials that were drawn."""
    return {t.number: dict(t.params) for t in trials_of(keeper) if t.state.name != "WAITING"}


def trials_of(keeper: Keeper) -> list[FrozenTrial]:
    """What a reader finds in the storage, past every cache of the keeper, with nothing but Optuna."""
    return read_by_optuna(str(keeper._storage.url), keeper.study_spec.name)


def read_by_optuna(url: str, name: str) -> list[FrozenTrial]:
    if url.startswith("journal:"):
        backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:"))
        return optuna.load_study(
            study_name=name, storage=optuna.storages.JournalStorage(backend)
        ).get_trials()
    storage = optuna.storages.RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    try:
        return optuna.load_study(study_name=name, storage=storage).get_trials()
    finally:
        storage.engine.dispose()


@pytest.fixture(scope="session")
def _empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("database") / "empty.db"
    optuna.storages.RDBStorage(f"sqlite:///{file}").engine.dispose()
    return file


@pytest.fixture
def new_database(tmp_path: Path, _empty_database: Path) -> Callable[[str], str]:
    """`new_database(name)` -> URL of a fresh SQLite file whose tables exist already, which saves time."""

    def new(name: str = "study") -> str:
        return f"sqlite:///{shutil.copy(_empty_database, tmp_path / f'{name}.db')}"

    return new


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Of storage; a test that asks for it runs on each."""
    return str(request.param)


@pytest.fixture
def new_url(
    kind: str, tmp_path: Path, new_database: Callable[[str], str], request: pytest.FixtureRequest
) -> Callable[[str], str]:
    """`new_url(name)` -> of an empty storage of this kind."""

    def new(name: str = "study") -> str:
        if kind == "postgresql":
            return str(request.getfixturevalue("postgresql").new_database())
        return new_database(name) if kind == "sqlite" else f"journal:{tmp_path / name}.log"

    return new


@pytest.fixture
def plainly() -> Callable[[str, str], list[FrozenTrial]]:
    """(url, study) -> trials as Optuna alone reads them."""
    return read_by_optuna


@pytest.fixture
def make_keeper(tmp_path: Path, new_database: Callable[[str], str]) -> Iterator[Callable[..., Keeper]]:
    """`make_keeper(trials=..., sampler=...)`: on the study called `at`, as a new process would."""
    urls: dict[str, str] = {}
    made: list[Keeper] = []

    def make(
        *, at: str = "study", url: str | None = None, owner: DriverProcess | None = None, **options: Any
    ) -> Keeper:
        if url is None:
            url = urls[at] = urls.get(at) or new_database(at)
        made.append(Keeper(build_study_spec(tmp_path / f"run-{at}", **options), url, owner))
        return made[-1]

    yield make
    for keeper in made:
        keeper._storage.close()


@pytest.fixture
def held_elsewhere() -> Iterator[Callable[[str, str], None]]:
    """`held_elsewhere(url, name)`: from now on a keeper on another machine gives signs of life."""
    over, threads = threading.Event(), list[threading.Thread]()
    owner = DriverProcess(run="theirs", host="node7", place="node7 boot pid:[1]", pid=11, started=1.0)

    def hold(url: str, name: str) -> None:
        storage = open_storage(url)
        study = optuna.load_study(study_name=name, storage=storage)

        def beat(number: int) -> None:
            study.set_user_attr("lease", Lease(owner=owner, keeper="another", beat=number).to_text())

        def keep() -> None:
            for number in range(1, 600):
                if over.wait(0.1):
                    break
                beat(number)
            storage.close()

        beat(0)
        threads.append(threading.Thread(target=keep))
        threads[-1].start()

    yield hold
    over.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def study_spec() -> Callable[..., StudySpec]:
    return build_study_spec


@pytest.fixture(scope="session")
def pack() -> type[SimulatedPack]:
    return SimulatedPack


@pytest.fixture
def report() -> Callable[..., SeatReport]:
    return make_report


@pytest.fixture
def stored() -> Callable[[Keeper], list[FrozenTrial]]:
    return trials_of


@pytest.fixture
def configs() -> Callable[[Keeper], Mapping[int, Mapping[str, Any]]]:
    return drawn
