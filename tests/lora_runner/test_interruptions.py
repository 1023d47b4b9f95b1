"""An interrupted trial resumes from its checkpoint with the results of an uninterrupted one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_runner.checkpoint import _state_digest
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import Seat
from lora_runner.protocol import Assignment, SeatReport
from lora_runner.session import Session
from tests.lora_runner.configs import CONFIGS

Reports = dict[int, list[SeatReport]]
RESUMED = replace(
    CONFIGS[1], lora_dropout=0.2, gradient_accumulation_steps=3, lr_scheduler_type="cosine", warmup_steps=1
)


def weights(seat: Seat) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in seat.parameters.items()}


def advance_to(session: Session, number: int, micro_step: int) -> list[SeatReport]:
    """Train micro-batch by micro-batch until a trial has computed `micro_step` of them."""
    reports: list[SeatReport] = []
    (trial,) = [r for r in session.trials if r.assignment.number == number]
    while trial.seat.micro_step < micro_step:
        reports += session._step()
    return reports


@pytest.mark.gpu
@pytest.mark.parametrize(
    "micro_step", [1, 6, 9, 11], ids=["before-a-step", "between", "at-a-report", "mid-window"]
)
def test_an_interrupted_trial_ends_as_if_it_had_never_been(
    new_pack: Callable[..., Pack],
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    micro_step: int,
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    never = new_session()
    never.start_trial(0, assign(0, RESUMED))
    seat = never.trials[0].seat
    expected = run(never)[0]

    broken_off = new_session(2)
    broken_off.start_trial(0, assign(1, RESUMED))
    broken_off.start_trial(1, assign(2, CONFIGS[0]))
    before = [r for r in advance_to(broken_off, 1, micro_step) if r.number == 1]
    broken_off.save(1)
    watch = broken_off.trials[0].watch

    later = new_session(3, on=new_pack())  # another process would load the base again
    later.start_trial(2, assign(1, RESUMED, attempt=2))
    resumed = later.trials[0]
    assert resumed.seat.step == micro_step // 3
    assert resumed.wall_seconds > 0
    assert resumed.watch == watch
    assert resumed.watch is not watch
    after = run(later)[1]
    assert numbers([*before, *after]) == numbers(expected)
    for name, weight in weights(seat).items():
        assert torch.equal(weight, resumed.seat.parameters[name].detach()), name


def test_saving_in_the_middle_of_a_window_does_not_disturb_the_trial_that_goes_on(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    session = new_session()
    session.start_trial(0, assign(0, RESUMED))
    before = advance_to(session, 0, 5)
    session.save(0)
    assert numbers([*before, *run(session)[0]]) == numbers(run(new_session(), [assign(1, RESUMED)])[1])


def flip_a_bit(checkpoint: Path) -> None:
    content = bytearray((checkpoint / "seat.safetensors").read_bytes())
    content[-5] ^= 1
    (checkpoint / "seat.safetensors").write_bytes(content)


def count_on(checkpoint: Path) -> None:
    text = (checkpoint / "state.json").read_text()
    assert '"micro_step": 6' in text
    (checkpoint / "state.json").write_text(text.replace('"micro_step": 6', '"micro_step": 7'))


def change_a_loss(checkpoint: Path) -> None:
    state = json.loads((checkpoint / "state.json").read_text())
    state["progress"]["watch"]["losses"][-1] *= 100
    (checkpoint / "state.json").write_text(json.dumps(state))


def forget_the_watch(checkpoint: Path) -> None:
    """A complete checkpoint as another version of the program may have written it."""
    state = json.loads((checkpoint / "state.json").read_text())
    del state["progress"]["watch"]
    (checkpoint / "state.json").write_text(json.dumps(state | {"state_sha256": _state_digest(state)}))


@pytest.mark.parametrize("damage", [flip_a_bit, count_on, change_a_loss, forget_the_watch])
def test_a_damaged_checkpoint_means_the_one_before_it_or_a_fresh_start(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
    damage: Callable[[Path], None],
) -> None:
    session = new_session()
    assignment = assign(0, CONFIGS[0])
    session.start_trial(0, assignment)
    advance_to(session, 0, 3)
    session.save(0)
    folder = Path(assignment.folder)
    (folder / "checkpoint").rename(folder / "kept")
    advance_to(session, 0, 6)
    session.save(0)
    (folder / "kept").rename(folder / "checkpoint.previous")
    expected = numbers(run(session)[0])[-1:]

    damage(folder / "checkpoint")
    for _, step in enumerate((3, 0)):
        again = new_session()
        again.start_trial(0, assignment)
        assert again.trials[0].seat.step == step
        assert numbers(run(again)[0])[-1:] == expected
        (folder / "checkpoint.previous" / "seat.safetensors").write_bytes(b"")


def test_a_checkpoint_of_another_configuration_is_not_continued(
    new_session: Callable[..., Session],
    assign: Callable[..., Assignment],
    run: Callable[..., Reports],
    numbers: Callable[..., Any],
) -> None:
    session = new_session()
    session.start_trial(0, assign(0, CONFIGS[0]))
    advance_to(session, 0, 3)
    session.save(0)
    other = replace(CONFIGS[0], learning_rate=1e-3)
    again = new_session()
    again.start_trial(0, assign(0, other))
    assert again.trials[0].seat.step == 0
    assert numbers(run(again)[0]) == numbers(run(new_session(), [assign(1, other)])[1])


def test_checkpoints_follow_their_reports_and_are_spared_trials_that_leave(
    new_session: Callable[..., Session], assign: Callable[..., Assignment]
) -> None:
    session = new_session(2, checkpoint_seconds=0.0)
    stays, leaves = assign(0, CONFIGS[0]), assign(1, replace(CONFIGS[0], seed=5))
    session.start_trial(0, stays)
    session.start_trial(1, leaves)
    assert [(r.number, r.percent) for r in session.advance(60)] == [(0, 20), (1, 20)]
    # The reports have not been delivered yet: after a crash now the trials must report again.
    assert not (Path(stays.folder) / "checkpoint").exists()
    session.remove(1)
    session.advance(60)
    assert json.loads((Path(stays.folder) / "checkpoint" / "state.json").read_text())["step"] == 2
    assert not Path(leaves.folder).exists()


def test_checkpoints_wait_for_their_time(
    new_session: Callable[..., Session], assign: Callable[..., Assignment], run: Callable[..., Reports]
) -> None:
    assignment = assign(0, CONFIGS[0])
    run(new_session(checkpoint_seconds=1e6), [assignment])
    assert not (Path(assignment.folder) / "checkpoint").exists()
