"""A run folder with its sweep file and a study that a simulated pack writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lora_runner.config import TrialConfig
from sweeps.keeper.keeper import Keeper
from sweeps.study.lease import DriverProcess
from sweeps.sweep import Sweep

FILE = """\
name: t
model: base
data: {{train: data.jsonl}}
training: {{max_steps: 100, per_device_train_batch_size: 8}}
trials: {trials}
output: {output}
storage: {storage}
{more}
"""


def loss(config: TrialConfig, percent: int) -> float | str:
    """Falls over the budget; high rates diverge."""
    if config.learning_rate > 5e-4:
        return "diverged"
    return 2.0 + abs(config.learning_rate - 3e-4) * 1000 + 1.0 / percent


@dataclass
class Watched:
    """A sweep whose study is written by `keeper`."""

    sweep: Sweep
    keeper: Keeper
    pack: Any

    @property
    def folder(self) -> Path:
        return self.sweep.run_folder


@pytest.fixture
def watched(
    tmp_path: Path,
    new_database: Callable[[str], str],
    study_spec: Callable[..., Any],
    pack: type,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Watched]]:
    """`watched(trials=6, turns=None)`: a sweep after so many turns of its pack; None: at its end."""
    keepers: list[Keeper] = []

    def make(
        *,
        trials: int = 6,
        turns: int | None = None,
        more: str = "",
        owner: DriverProcess | None = None,
        url: str | None = None,
    ) -> Watched:
        if url is None:
            url = storage = new_database("study")
        else:  # it may hold a password
            monkeypatch.setenv("THEIR_STORAGE", url)
            storage = "env:THEIR_STORAGE"
        folder = tmp_path / "runs" / "t"
        folder.mkdir(parents=True)
        text = FILE.format(trials=trials, output=tmp_path / "runs", storage=storage, more=more)
        (folder / "sweep.yaml").write_text(text, encoding="utf-8")
        keeper = Keeper(study_spec(folder, trials=trials, sampler="random"), url, owner)
        keepers.append(keeper)
        seats = pack(keeper, loss)
        seats.ask()
        for _ in range(1000 if turns is None else turns):
            if not seats.seats:
                break
            write_reports(folder, seats)
            seats.turn()
        return Watched(Sweep.load(folder, check_files=False), keeper, seats)

    yield make
    for keeper in keepers:
        keeper._storage.close()


def write_reports(folder: Path, seats: Any) -> None:
    """What the seats are about to report, as a session writes it into the trials' own folders."""
    for assignment in seats.seats.values():
        percent = seats.report_at[seats.turns[assignment.number]]
        report = {"percent": percent, "step": percent, "train_loss": 1.5, "grad_norm": 0.5}
        file = folder / "trials" / f"{assignment.number:04d}" / "reports.jsonl"
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(report | {"wall_seconds": 2.0 * percent}) + "\n")
