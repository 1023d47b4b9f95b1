"""Studies as sweeps leave them, in every state a report must tell of, and their pages."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from results.errors import NothingToSay
from results.report import write_report
from results.verdict.verdict import Verdict, verdict
from tests.results.conftest import study as make_study
from tests.results.conftest import trial as make_trial

XSS = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><b>&amp;\''
"""What a name or a reason may hold without the page ever running it."""
START = datetime(2026, 1, 1, 12)
SWEEP_FILE = "name: demo\ndata: {seed: 11}\ntraining: {seed: 12}\nsearch: {seed: 13}\n"


def seated(trial: FrozenTrial, *, seat: int, begin: float, seconds: float, worker: int = 0) -> FrozenTrial:
    """The trial on a seat, `begin` seconds after START."""
    trial.user_attrs |= {"seat": seat, "worker": worker}
    trial.datetime_start = START + timedelta(seconds=begin)
    trial.datetime_complete = (
        None if seconds == math.inf else trial.datetime_start + timedelta(seconds=seconds)
    )
    return trial


def curve(loss: float, *, until: int = 100) -> dict[int, float]:
    return {p: loss + 0.6 * (1 - p / 100) for p in (20, 40, 60, 80, 100) if p <= until}


def many_trials(count: int, *, seed: int = 0) -> list[FrozenTrial]:
    """A sweep of `count` trials around a best rate of 1e-3, a third of them pruned, some diverged."""
    random_ = random.Random(seed)
    trials = []
    for number in range(count):
        rate, ratio = 10 ** random_.uniform(-5, -2.7), 10 ** random_.uniform(-2, 0)
        loss = 2 + 0.3 * (math.log10(rate) + 3) ** 2 + 0.05 * abs(math.log10(ratio) + 0.6)
        loss += random_.gauss(0, 0.01)
        outcome = "diverged" if rate > 1.7e-3 else "pruned" if number % 3 == 2 and number else "complete"
        until = 100 if outcome == "complete" else random_.choice((20, 40))
        trial = make_trial(
            loss if outcome == "complete" else None,
            lr=rate,
            ratio=ratio,
            scheduler=random_.choice(("linear", "constant", "cosine")),
            outcome=outcome,
            reports=curve(loss, until=until),
            signs=("loss_spike",) if outcome == "diverged" else (),
            reason="" if outcome == "complete" else f"at {until}%: rank 5 of 9",
            attrs={"folder": f"trials/{number:04d}"},
        )
        trials.append(seated(trial, seat=number % 4, begin=30 * (number // 4), seconds=30))
    return trials


@pytest.fixture(scope="session")
def rich() -> optuna.Study:
    """Every outcome there is, a running trial, text that is HTML, and numbers that are none."""
    default = make_trial(
        2.31,
        lr=2e-4,
        label="guideline default",
        rows=("scenario.general", "size.7-8b", "embedding.ratio"),
        reports=curve(2.31),
    )
    reports = {20: math.nan, 40: math.inf}
    special = [
        default,
        make_trial(outcome="diverged", lr=1.9e-3, reports=reports, reason=XSS, attrs={"folder": XSS}),
        make_trial(outcome="out_of_memory", lr=5e-4, reason="no memory for a step"),
        make_trial(outcome="failed", lr=3e-4, reason=f"ValueError: {XSS}"),
        make_trial(2.2, lr=6e-4, label=XSS, reports=curve(2.2), signs=("slow_decrease",)),
    ]
    special = [seated(t, seat=n % 4, begin=-100 + 10 * n, seconds=15) for n, t in enumerate(special)]
    running = make_trial(outcome="running", lr=7e-4, reports={20: 2.5})
    special.append(seated(running, seat=1, begin=180, seconds=math.inf))
    return make_study(*special, *many_trials(80), name=f"rich {XSS}")


def judged(study: optuna.Study) -> Verdict | None:
    try:
        return verdict(study)
    except NothingToSay:
        return None


@pytest.fixture(scope="session")
def rich_page(rich: optuna.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of `rich`, to be read and not written."""
    folder = tmp_path_factory.mktemp("rich")
    return write_report(rich, judged(rich), folder, sweep_file=SWEEP_FILE, run_folder="runs/demo", target=40)


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Path]:
    """`page(study, target=30)`: the report's file."""

    def write(study: optuna.Study, **options: Any) -> Path:
        options = {"sweep_file": SWEEP_FILE, "run_folder": "runs/demo"} | options
        return write_report(study, judged(study), tmp_path / "run", **options)

    return write
