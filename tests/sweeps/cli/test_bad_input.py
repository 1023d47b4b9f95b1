"""Bad input is exit code 2 with its place in one line, and nothing is written."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.artifacts.run_folder import write_run_folder
from sweeps.keeper.keeper import Keeper
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import Call, edit, listing

Spoil = Callable[[Path], object]


def without_weights(folder: Path) -> None:
    (folder / "model" / "model.safetensors").unlink()


def only_pickles(folder: Path) -> None:
    (folder / "model" / "model.safetensors").rename(folder / "model" / "pytorch_model.bin")


def no_target(folder: Path) -> None:
    """The evaluation set's completions lie beyond max_length."""
    record = json.dumps({"prompt": "a long prompt " * 20, "completion": "x"})
    (folder / "eval.jsonl").write_text(record + "\n")
    edit(folder / "s.yaml", "eval_fraction: 0.2", "eval: eval.jsonl")


def set_in_file(old: str, new: str) -> Spoil:
    return lambda folder: edit(folder / "s.yaml", old, new)


def write(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


BAD_INPUT: dict[str, tuple[Spoil, str]] = {
    "unknown key": (set_in_file("trials:", "trails:"), r"s.yaml:6: .*Did you mean 'trials'"),
    "unknown key below": (set_in_file("max_steps:", "max_step:"), r"s.yaml:5: .*Did you mean 'max_steps'"),
    "wrong type": (set_in_file("trials: 4", "trials: many"), r"s.yaml:6: .*whole number.*'many'"),
    "low above high": (
        set_in_file("trials: 4", "trials: 4\nspace:\n  learning_rate: {low: 1e-3, high: 1e-4}"),
        r"s.yaml:8: .*low.*high",
    ),
    "missing data": (
        set_in_file("data.jsonl", "date.jsonl"),
        r"s.yaml:3: .*does not exist.*Did you mean 'data.jsonl'",
    ),
    "missing model": (set_in_file("model: model", "model: ./modle"), r"s.yaml:2: .*does not exist"),
    "empty data": (write("data.jsonl", ""), r"s.yaml:3: .*is empty"),
    "data of blank lines": (write("data.jsonl", "\n\n"), r"data.jsonl.*(empty|no records?|at least one)"),
    "strange record": (
        write("data.jsonl", '{"prompt": "a", "completion": "b"}\n{"foo": 1}\n'),
        r"data.jsonl:2: ",
    ),
    "batch beyond any memory": (
        set_in_file("batch_size: 4", "batch_size: 100000000"),
        r"s.yaml:5: training.per_device_train_batch_size .* at most 16,777,216; got 100,000,000 x \d+",
    ),
    "no target token": (no_target, r"eval.jsonl: the evaluation set must hold at least one token with loss"),
    "unknown scenario": (
        set_in_file("trials:", "scenario: genral\ntrials:"),
        r"s.yaml:6: .*Did you mean 'general'",
    ),
    "unknown scheduler": (
        set_in_file("trials: 4", "trials: 4\nspace:\n  lr_scheduler_type: {choices: [linear, cosin]}"),
        r"s.yaml:8: .*'cosin'.*cosine",
    ),
    "model without weights": (without_weights, r"s.yaml:2: .*no weights"),
    "model of pickles": (only_pickles, r"s.yaml:2: .*is a pickle"),
    "password in the file": (
        set_in_file("output: runs", "storage: postgresql://me:hush@localhost/db"),
        r"s.yaml:7: .*must not hold a password",
    ),
    "no yaml": (write("s.yaml", "name: [small\n"), r"s.yaml:\d+: "),
    "missing file": (lambda folder: (folder / "s.yaml").unlink(), r"s.yaml.*(does not exist|no such file)"),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_exit_code_2_with_its_place_and_nothing_is_written(
    call: Call, folder: Path, command: str, case: str
) -> None:
    spoil, message = BAD_INPUT[case]
    spoil(folder)
    before = listing(folder)
    answer = call(command, folder / "s.yaml")
    assert answer.code == 2, answer
    assert re.search(message, answer.err), answer.err
    assert "Traceback" not in answer.err
    assert "hush" not in answer.err
    assert answer.out == ""
    assert listing(folder) == before


def test_all_problems_of_a_file_come_together(call: Call, folder: Path) -> None:
    (folder / "s.yaml").write_text(
        "name: small\nmodel: ./none\ndata: data.jsonl\ntraining: {max_steps: -1}\ntrials: 0\nsead: 1\n"
    )
    answer = call("plan", folder / "s.yaml")
    assert answer.code == 2
    assert [line.partition("s.yaml:")[2].partition(":")[0] for line in answer.err.splitlines()[1:]] == list(
        "2456"
    )


def test_a_number_written_as_text_is_understood(call: Call, folder: Path) -> None:
    edit(folder / "s.yaml", "trials: 4", "trials: 4\nspace:\n  learning_rate: {low: 1e-4, high: '2e-3'}")
    answer = call("plan", folder / "s.yaml", "--json")
    assert answer.code == 0, answer.err
    rate = json.loads(answer.out)["space"]["dimensions"][0]
    assert (rate["low"], rate["high"]) == (1e-4, 2e-3)


def test_an_unreachable_storage_is_exit_code_2_without_its_password(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("SWEEPS_STORAGE", f"postgresql+psycopg://me:hush@127.0.0.1:{port}/db")
    before = listing(folder)
    for command in ("run", "confirm", "status", "verdict"):
        answer = call(command, folder / "s.yaml")
        assert answer.code == 2, answer
        assert "me:***@127.0.0.1" in answer.err
        assert "hush" not in answer.err
    assert listing(folder) == before
    monkeypatch.delenv("SWEEPS_STORAGE")
    edit(folder / "s.yaml", "output: runs", "storage: env:NOWHERE_SET")
    answer = call("run", folder / "s.yaml")
    assert (answer.code, "NOWHERE_SET" in answer.err) == (2, True)
    edit(folder / "s.yaml", "storage: env:NOWHERE_SET", "storage: sqlite:///missing/study.db")
    answer = call("run", folder / "s.yaml")
    assert (answer.code, "there is no folder" in answer.err) == (2, True)
    assert [p.name for p in folder.iterdir() if p.name in ("runs", "missing")] == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: None, "--trials is at least"),
        (lambda run: shutil.rmtree(run), "has no study yet"),
    ],
)
def test_what_cannot_be_confirmed_is_one_line_and_exit_code_2(
    call: Call, folder: Path, ran: Path, spoil: Spoil, words: str
) -> None:
    spoil(ran)
    before = listing(folder)
    answer = call("confirm", folder / "s.yaml", "--trials", "5")
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert len(answer.err.splitlines()) == 1
    assert listing(folder) == before


def test_only_a_plan_of_a_confirmation_is_printed_as_json(call: Call, folder: Path) -> None:
    answer = call("confirm", folder / "s.yaml", "--json")
    assert answer.code == 2
    assert "add --plan" in answer.err


def test_a_confirmation_that_cannot_be_asked_for_names_every_problem(call: Call, folder: Path) -> None:
    answer = call("confirm", folder / "s.yaml", "--margin", "0", "--best", "0", "--hours", "nan")
    assert answer.code == 2
    assert all(name in answer.err for name in ("--best is at least 1; got 0", "the margin", "--hours"))


def test_a_sweep_without_a_finished_trial_has_nothing_to_confirm(call: Call, folder: Path, pack: Any) -> None:
    sweep = Sweep.load(folder / "s.yaml")
    write_run_folder(sweep.config)
    keeper = Keeper(sweep.plan().study_spec, sweep.storage_url)
    pack(keeper, lambda config, percent: "diverged").run()
    keeper.leave()
    answer = call("confirm", folder / "s.yaml")
    assert answer.code == 2
    assert "has no trial that finished its full budget, so there is nothing to confirm" in answer.err
    assert len(answer.err.splitlines()) == 1
