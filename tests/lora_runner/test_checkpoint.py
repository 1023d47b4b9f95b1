"""A checkpoint is complete or absent, and refused if it is of another trial."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from files_and_text.atomic_files import atomic_write
from lora_runner.checkpoint import _state_digest, has_checkpoint, load_checkpoint, save_checkpoint
from lora_runner.config import TrialConfig
from lora_runner.errors import CheckpointError
from lora_runner.pack.pack import MicroBatch, Pack
from lora_runner.pack.seat import Seat
from tests.lora_runner.plain_models import block_of

CONFIG = TrialConfig(learning_rate=1e-2, embedding_learning_rate=1e-3, max_steps=9, lora_r=4, lora_alpha=8)


@pytest.fixture(scope="module")
def pack(new_pack: Callable[..., Pack]) -> Pack:
    return new_pack()


@pytest.fixture
def trained(pack: Pack) -> Seat:
    seat = pack.new_seat(CONFIG)
    train(pack, seat, 2)
    return seat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "trial" / "checkpoint"


def train(pack: Pack, seat: Seat, steps: int) -> None:
    ids = torch.arange(2, 26, device=pack.base.device).reshape(2, 12)
    block = block_of(ids, ids)
    for _ in range(steps):
        pack.train_step({seat: MicroBatch(block, ids.numel(), len(block.target_ids))})


def state(seat: Seat) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in seat.state_tensors()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.gpu
def test_a_seat_goes_on_from_its_checkpoint_bit_for_bit(pack: Pack, trained: Seat, folder: Path) -> None:
    save_checkpoint(folder, trained, {"note": [1, 2.5, None]})
    again = pack.new_seat(CONFIG)
    assert load_checkpoint(folder, again)[0] == {"note": [1, 2.5, None]}
    assert (again.step, again.micro_step, again.num_tokens) == (2, 2, 48)
    assert same(state(again), state(trained))
    for seat in (trained, again):
        train(pack, seat, 2)
    assert same(state(again), state(trained))


def test_a_checkpoint_before_the_first_step_is_one_too(pack: Pack, folder: Path) -> None:
    fresh, again = pack.new_seat(CONFIG), pack.new_seat(CONFIG)
    save_checkpoint(folder, fresh, {})
    load_checkpoint(folder, again)
    for seat in (fresh, again):
        train(pack, seat, 1)
    assert same(state(again), state(fresh))


def test_a_checkpoint_is_safetensors_and_json_and_nothing_else(trained: Seat, folder: Path) -> None:
    save_checkpoint(folder, trained, {})
    assert sorted(p.name for p in folder.parent.rglob("*")) == [
        "checkpoint",
        "seat.safetensors",
        "state.json",
    ]
    tensors = load_file(folder / "seat.safetensors")
    assert len(tensors) == 3 * len(trained.parameters)
    assert torch.equal(
        tensors["exp_avg.lm_head.weight"], dict(trained.state_tensors())["exp_avg.lm_head.weight"]
    )


def test_the_newer_checkpoint_replaces_the_older_one_whole(pack: Pack, trained: Seat, folder: Path) -> None:
    save_checkpoint(folder, trained, {"at": 1})
    train(pack, trained, 1)
    save_checkpoint(folder, trained, {"at": 2})
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]
    assert load_checkpoint(folder, pack.new_seat(CONFIG))[0] == {"at": 2}


# --- killed between two moves: what a crash leaves, by hand -------------------------------------------


def test_killed_while_writing(pack: Pack, trained: Seat, folder: Path) -> None:
    """The new checkpoint is half written under a temporary name, the old one is in place."""
    save_checkpoint(folder, trained, {"at": 1})
    half = folder.with_name(".checkpoint.4242.tmp")
    half.mkdir()
    (half / "seat.safetensors").write_bytes(b"half of it")
    assert load_checkpoint(folder, pack.new_seat(CONFIG))[0] == {"at": 1}
    save_checkpoint(folder, trained, {"at": 2})
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]
    assert load_checkpoint(folder, pack.new_seat(CONFIG))[0] == {"at": 2}


def test_killed_while_writing_the_very_first(trained: Seat, folder: Path, pack: Pack) -> None:
    half = folder.with_name(".checkpoint.4242.tmp")
    half.mkdir(parents=True)
    (half / "state.json").write_text("{}")
    assert not has_checkpoint(folder)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_checkpoint(folder, pack.new_seat(CONFIG))


def test_killed_between_the_two_renames(pack: Pack, trained: Seat, folder: Path) -> None:
    """The old checkpoint is renamed, the new one is not."""
    save_checkpoint(folder, trained, {"at": 1})
    folder.rename(folder.with_name("checkpoint.previous"))
    assert has_checkpoint(folder)
    again = pack.new_seat(CONFIG)
    assert load_checkpoint(folder, again)[0] == {"at": 1}
    assert same(state(again), state(trained))
    save_checkpoint(folder, trained, {"at": 2})
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def test_killed_before_the_old_one_was_removed(pack: Pack, trained: Seat, folder: Path) -> None:
    save_checkpoint(folder, trained, {"at": 1})
    folder.rename(folder.with_name("checkpoint.previous"))
    save_checkpoint(folder.with_name("other"), trained, {"at": 2})
    folder.with_name("other").rename(folder)
    assert load_checkpoint(folder, pack.new_seat(CONFIG))[0] == {"at": 2}


# --- damage -------------------------------------------------------------------------------------------


def damages() -> Iterator[tuple[str, Callable[[Path], object], str]]:
    def edit(**changes: object) -> Callable[[Path], object]:
        def apply(folder: Path) -> None:
            values = json.loads((folder / "state.json").read_text()) | changes
            (folder / "state.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

        return apply

    def flip(folder: Path) -> None:
        content = bytearray((folder / "seat.safetensors").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "seat.safetensors").write_bytes(content)

    def cut(name: str) -> Callable[[Path], object]:
        return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)

    yield "one-bit", flip, "does not match its checksum"
    yield "tensors-cut", cut("seat.safetensors"), "does not match its checksum"
    yield "tensors-gone", lambda folder: (folder / "seat.safetensors").unlink(), "FileNotFoundError"
    yield "state-cut", cut("state.json"), "JSONDecodeError"
    yield "state-empty", lambda folder: (folder / "state.json").write_text(""), "JSONDecodeError"
    yield (
        "state-binary",
        lambda folder: (folder / "state.json").write_bytes(b"\xff\xfe\x00"),
        "UnicodeDecodeError",
    )
    yield "state-a-list", lambda folder: (folder / "state.json").write_text("[]"), "TypeError"
    yield "no-checksum", edit(sha256=None), "KeyError: 'sha256'"
    yield "no-step", edit(step=None), "state.json does not match its checksum"
    yield "other-step", edit(step=3), "state.json does not match its checksum"
    yield "other-progress", edit(progress={"at": 3}), "state.json does not match its checksum"
    yield "no-checksum-of-the-state", edit(state_sha256=None), "KeyError: 'state_sha256'"
    yield "format-before-that-checksum", edit(format=1, state_sha256=None), "has format 1, not 2"
    yield "other-format", edit(format=99), "has format 99"
    yield "other-config", edit(config=replace(CONFIG, lora_alpha=9).to_dict()), "belongs to another trial"
    yield "unknown-config", edit(config={"rank": 4}), "unknown trial fields rank"


@pytest.mark.parametrize(("damage", "reason"), [pytest.param(d, r, id=i) for i, d, r in damages()])
def test_damage_is_seen_and_the_seat_left_alone(
    pack: Pack, trained: Seat, folder: Path, damage: Callable[[Path], object], reason: str
) -> None:
    save_checkpoint(folder, trained, {"at": 2})
    damage(folder)
    seat, fresh = pack.new_seat(CONFIG), pack.new_seat(CONFIG)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(folder, seat)
    assert (seat.step, seat.micro_step) == (0, 0)
    assert same(state(seat), state(fresh))
    # If the previous checkpoint is still there, it is used.
    save_checkpoint(folder.with_name("old"), fresh, {"at": 0})
    folder.with_name("old").rename(folder.with_name("checkpoint.previous"))
    assert load_checkpoint(folder, seat)[0] == {"at": 0}


def test_progress_that_cannot_be_read_is_damage_too(pack: Pack, trained: Seat, folder: Path) -> None:
    save_checkpoint(folder, pack.new_seat(CONFIG), {"at": 0})
    folder.rename(folder.with_name("checkpoint.previous"))
    save_checkpoint(folder.with_name("new"), trained, {"place": 2})
    folder.with_name("new").rename(folder)
    seat = pack.new_seat(CONFIG)
    at, (problem,) = load_checkpoint(folder, seat, lambda progress: progress["at"])
    assert (at, seat.step) == (0, 0)
    assert problem == f"{folder}: KeyError: 'at'"
    with pytest.raises(CheckpointError, match="KeyError: 'elsewhere'"):
        load_checkpoint(folder, seat, lambda progress: progress["elsewhere"])


def test_a_checkpoint_of_other_layers_is_refused(
    new_pack: Callable[..., Pack], trained: Seat, folder: Path
) -> None:
    save_checkpoint(folder, trained, {})
    for options in ({"target_modules": ("q_proj",)}, {"train_embeddings": ("lm_head",)}):
        seat = new_pack(**options).new_seat(CONFIG)
        with pytest.raises(CheckpointError, match="does not belong to this seat"):
            load_checkpoint(folder, seat)


def test_a_checkpoint_of_a_wider_model_is_refused(
    new_pack: Callable[..., Pack], trained: Seat, folder: Path
) -> None:
    save_checkpoint(folder, trained, {})
    with pytest.raises(CheckpointError, match=r"of shape \(128, 4\), expected .* of \(192, 4\)"):
        load_checkpoint(folder, new_pack(intermediate_size=192).new_seat(CONFIG))


def test_tensors_of_another_trial_do_not_pass_for_this_ones(pack: Pack, trained: Seat, folder: Path) -> None:
    """Swapped files: each is valid, together they are not a checkpoint."""
    save_checkpoint(folder, trained, {})
    save_file({"parameter.x": torch.zeros(1)}, folder / "seat.safetensors")
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(folder, pack.new_seat(CONFIG))


# --- damaged in any way -------------------------------------------------------------------------------


def signed(folder: Path, values: dict[str, Any]) -> None:
    """Any state, with a matching checksum."""
    atomic_write(folder / "state.json", json.dumps(values | {"state_sha256": _state_digest(values)}))


def damaged(raw: bytes, generator: random.Random) -> bytes:
    """Bytes that differ from `raw`."""
    at = generator.randrange(len(raw))
    kind = generator.randrange(4)
    if kind == 0:
        return raw[:at]
    if kind == 1:
        return raw[:at] + bytes([raw[at] ^ 1 << generator.randrange(8)]) + raw[at + 1 :]
    if kind == 2:
        return raw[:at] + generator.randbytes(generator.randint(1, 20)) + raw[at:]
    # safetensors' lengths and offsets are at the beginning.
    head = bytearray(raw)
    head[generator.randrange(min(400, len(raw)))] ^= 0xFF
    return bytes(head)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(generator=st.randoms(use_true_random=False), with_checksum=st.booleans())
def test_damaged_tensors_are_a_checkpoint_error_and_touch_no_seat(
    pack: Pack, trained: Seat, folder: Path, generator: random.Random, with_checksum: bool
) -> None:
    """Also with a matching checksum: then only safetensors can detect it."""
    save_checkpoint(folder, trained, {})
    tensors, values = folder / "seat.safetensors", json.loads((folder / "state.json").read_text())
    raw = tensors.read_bytes()
    head = int.from_bytes(raw[:8], "little") + 8
    # After the header any bytes are numbers: only the checksum can detect damage there.
    broken = damaged(raw[:head], generator) + raw[head:] if with_checksum else damaged(raw, generator)
    tensors.write_bytes(broken)
    if with_checksum:
        values["sha256"] = hashlib.sha256(broken).hexdigest()
        signed(folder, values)
    refused_or_read(folder, pack)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(generator=st.randoms(use_true_random=False))
def test_a_damaged_state_is_a_checkpoint_error_and_touches_no_seat(
    pack: Pack, trained: Seat, folder: Path, generator: random.Random
) -> None:
    save_checkpoint(folder, trained, {})
    raw = (folder / "state.json").read_bytes()
    (folder / "state.json").write_bytes(damaged(raw, generator))
    refused_or_read(folder, pack)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(
        [None, "format", "config", "trainable_token_indices", "step", "micro_step", "num_tokens", "sha256"]
    ),
    inner=st.none() | st.sampled_from(sorted(CONFIG.to_dict())),
    value=ANYTHING,
)
@example(key=None, inner=None, value=[])
@example(key="progress", inner=None, value=3)
@example(key="step", inner=None, value="7")
@example(key="step", inner=None, value=-1)
def test_any_value_in_the_state_is_a_checkpoint_error_and_touches_no_seat(
    pack: Pack, trained: Seat, folder: Path, key: str | None, inner: str | None, value: object
) -> None:
    save_checkpoint(folder, trained, {})
    values = json.loads((folder / "state.json").read_text())
    if key == "config" and inner is not None:
        values["config"][inner] = value
    elif key is not None:
        values[key] = value
    if key is None:
        (folder / "state.json").write_text(json.dumps(value))
    else:
        signed(folder, values)
    refused_or_read(folder, pack)


def test_a_state_that_is_nested_without_end_or_counts_in_thousands_of_digits(
    pack: Pack, trained: Seat, folder: Path
) -> None:
    save_checkpoint(folder, trained, {})
    for text in ("[" * 100_000, '{"format": 1' + "0" * 5000 + "}", "", "\0", "null"):
        (folder / "state.json").write_text(text)
        with pytest.raises(CheckpointError):
            load_checkpoint(folder, pack.new_seat(CONFIG))


def refused_or_read(folder: Path, pack: Pack) -> None:
    """A state that is read is valid; one that is refused leaves the seat unchanged."""
    seat = pack.new_seat(CONFIG)
    before = state(seat)
    try:
        progress, _ = load_checkpoint(folder, seat)
    except CheckpointError:
        assert same(state(seat), before)
        assert (seat.step, seat.micro_step, seat.num_tokens) == (0, 0, 0)
        return
    assert isinstance(progress, dict)
    for count in (seat.step, seat.micro_step, seat.num_tokens):
        assert type(count) is int
        assert count >= 0
