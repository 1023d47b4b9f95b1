"""Wrong, undecided and lost words of simulated confirmations with a known truth (`benchmarks/simulator`)."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from benchmarks.harness.report import FOLDER, machine
from benchmarks.simulator.scores import Outcome, Rate, Scores, error_of_share, scores, simulate
from benchmarks.simulator.worlds import WORLDS
from files_and_text.atomic_files import atomic_write, atomic_write_json

PAGE = FOLDER / "confirmations.md"
FIGURES = FOLDER / "confirmations.json"
FEW_RUNS = 42
EVERY = 25
"""Sweeps after which figures are written, so that an end on the way loses little."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table."""

    world: str
    runs: int | None = None
    """Budget; None: the program's own, 8 seeds."""
    seats: int | None = None
    """None: a pack of all arms."""
    look_at: str = "rounds"

    @property
    def name(self) -> str:
        """As the table shows it."""
        parts = [self.world]
        parts += [f"{self.runs} runs"] if self.runs is not None else []
        parts += [f"{self.seats} seats, a look after every run"] if self.look_at == "runs" else []
        return ", ".join(parts)


CASES = (
    *(Case(world=world) for world in WORLDS),
    Case(world="cliff, noise 0.2%", runs=FEW_RUNS),
    Case(world="cliff, noise 0.2%", seats=8, look_at="runs"),
)
GOALS = (
    ("wrong", 0.05),
    ("wrong_for_retuner", 0.05),
    ("wrong_by_trials", 0.05),
    ("lost", 0.0),
)
MOST_UNDECIDED = 0.25
"""At FEW_RUNS."""
LEAST_POWER = 0.8
INTRODUCTION = """\
Sweeps and confirmations drawn from surfaces whose truth is known (`benchmarks/simulator`): the program
chooses the arms, their order, the end and the words; losses are drawn. ± is the Monte-Carlo standard error.

- wrong: share of sweeps with a word that is wrong, by the program's own meaning, at any look
- for a retuner: share of sweeps in which a value is refuted that costs at most the margin once everything
  else is retuned, with perfect knowledge
- by trials: the same, where a finished trial of the sweep itself has the value at such a cost
- lost: share of sweeps in which a later look takes a word back
- undecided: share of a sweep's distinct statements that are tested
- power: share of the arms that are 1% worse which are shown to be worse by more than the margin

The noise of a run is 0.2% of the loss and the budget is the program's own (8 seeds of each arm before, at
most 60 runs after), unless the case says otherwise. **Bold** misses a goal: at most 5% wrong, none lost,
power at least 0.8, at most 25% undecided after 42 runs. Words are judged by what they meant in the measured
version. N: the column sweeps."""


def main() -> None:
    """Simulate, print, and with --label keep the figures as one column of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=300, help="simulated sweeps of each case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="*", default=None, help="parts of names; default: all")
    parser.add_argument("--label", default=None, help="keep the figures under this name, such as `after`")
    parser.add_argument("--file", type=Path, default=FIGURES, help="where they are kept")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for case in CASES:
        if options.cases and not any(part in case.name for part in options.cases):
            continue
        measure(case, options)


def measure(case: Case, options: argparse.Namespace) -> None:
    """Simulate one case, and write its figures every EVERY sweeps."""
    outcomes: list[Outcome] = []
    began = time.monotonic()
    for number in range(options.sweeps):
        outcomes.append(
            simulate(
                WORLDS[case.world],
                number,
                seed=options.seed,
                runs=case.runs,
                seats=case.seats,
                look_at=case.look_at,
            )
        )
        if options.label and ((number + 1) % EVERY == 0 or number + 1 == options.sweeps):
            keep(case, outcomes, options)
    found = scores(outcomes)
    print(f"{case.name}: {line_of(found)} ({time.monotonic() - began:.0f} s)", flush=True)
    for kind in ("wrong", "wrong_for_retuner", "wrong_by_trials", "lost"):
        common = Counter(text for outcome in outcomes for text in set(getattr(outcome, kind)))
        if common:
            shown = "; ".join(f"{text} ({count})" for text, count in common.most_common(4))
            print(f"    {kind.replace('_', ' ')}: {shown}", flush=True)


def line_of(found: Scores) -> str:
    """The figures of one case in a line."""
    power = "" if found.power is None else f", power {found.power}"
    return (
        f"{found.sweeps} sweeps, wrong {found.wrong}, for a retuner {found.wrong_for_retuner}, "
        f"by trials {found.wrong_by_trials.value:.3f}, lost {found.lost}, "
        f"undecided {found.undecided}, runs {found.runs.value:.1f}, arms {found.arms.value:.1f}{power}"
    )


def keep(case: Case, outcomes: Sequence[Outcome], options: argparse.Namespace) -> None:
    """Write the figures of one case under the label, and the page anew."""
    path: Path = options.file
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    of_label = kept.setdefault(options.label, {"cases": {}})
    of_label |= {
        "command": _command(options),
        "machine": machine(),
    }
    words = Counter[str]()
    for outcome in outcomes:
        words.update(outcome.words)
    of_label["cases"][case.name] = scores(outcomes).to_dict() | {"words": dict(words.most_common())}
    atomic_write_json(path, kept)
    if path == FIGURES:
        atomic_write(PAGE, page(kept))


def _command(options: argparse.Namespace) -> str:
    given = f"--sweeps {options.sweeps} --seed {options.seed} --label {options.label}"
    return f"python -m benchmarks.confirmations {given}"


def page(kept: Mapping[str, Any]) -> str:
    """The page of all labels, the goals that are missed marked."""
    lines = ["# Simulated confirmations", "", *INTRODUCTION.splitlines()]
    for label, content in kept.items():
        about = content["machine"]
        lines += ["", f"## {label}", "", f"    {content['command']}", ""]
        lines += [
            f"{about['processor']}, Python {about['python']}, Optuna {about['optuna']}, {about['date']}",
            "",
        ]
        columns = (
            "case",
            "sweeps",
            "wrong",
            "for a retuner",
            "by trials",
            "lost",
            "undecided",
            "runs",
            "arms",
            "power",
        )
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        for name, figures in content["cases"].items():
            lines.append(f"| {' | '.join([name, str(figures['sweeps']), *cells(name, figures)])} |")
        lines.append(f"| {' | '.join(together(content['cases'].values()))} | | | | |")
    return "\n".join(lines) + "\n"


def together(cases: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name, sweeps and shares of all cases together."""
    every = list(cases)
    sweeps = sum(figures["sweeps"] for figures in every)
    found = ["all", str(sweeps)]
    for key, limit in GOALS:
        value = sum(figures["sweeps"] * figures[key]["value"] for figures in every) / sweeps
        text = str(Rate(value=value, error=error_of_share(value, sweeps)))
        found.append(f"**{text}**" if value > limit else text)
    return found


def cells(name: str, figures: Mapping[str, Any]) -> list[str]:
    """The cells of one case after its number of sweeps."""

    def cell(key: str, missed: bool) -> str:
        text = str(Rate(**figures[key]))
        return f"**{text}**" if missed else text

    found = [cell(key, figures[key]["value"] > limit) for key, limit in GOALS]
    few = f"{FEW_RUNS} runs" in name
    found.append(cell("undecided", few and figures["undecided"]["value"] > MOST_UNDECIDED))
    found += [f"{figures[key]['value']:.1f}" for key in ("runs", "arms")]
    power = figures["power"]
    found.append("" if power is None else cell("power", power["value"] < LEAST_POWER))
    return found


if __name__ == "__main__":
    main()
