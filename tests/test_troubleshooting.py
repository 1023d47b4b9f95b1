"""Every message of docs/troubleshooting.md is what the program says when it is provoked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch

from lora_runner.base.load_model import BaseSpec, load_tokenizer, meta_model
from lora_runner.data import load_data
from lora_runner.data_spec import DataSpec
from lora_runner.errors import ModelError, RunnerError
from lora_runner.memory import planned_device
from lora_runner.memory.planned_device import unused_gpu
from sweeps.errors import SweepError
from sweeps.keeper.failed_trials import without_value
from sweeps.keeper.start_failures import StartFailures, StartFault
from sweeps.plan.view.overview import fits_text
from sweeps.storage import open_storage
from sweeps.study.lease import DriverProcess, Lease, refuse_if_held
from sweeps.study.status import Status
from sweeps.study.study import check_identity

PAGE = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = dict(re.findall(r"^## (.+)\n\n```\n(.+)\n```$", PAGE, re.MULTILINE))
Tiny = Callable[..., Path]


def said(by: Callable[[], object]) -> str:
    with pytest.raises((SweepError, RunnerError)) as caught:
        by()
    return str(caught.value).splitlines()[0]


def data_error(model: Path, records: list[dict[str, Any]], folder: Path, **settings: Any) -> str:
    (folder / "d.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    tokenizer = load_tokenizer(BaseSpec(model=str(model)))
    spec = DataSpec(train=str(folder / "d.jsonl"), **settings)
    return said(lambda: load_data(spec, tokenizer))


def memory(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    plan: Any = SimpleNamespace(
        memory_gib=9.0,
        memory_available_gib=8.0,
        base_gib=1.0,
        fits=False,
        worker_spec=SimpleNamespace(seats=2),
    )
    return fits_text(plan).plain


def chat_template(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    records = [{"messages": [*turns, {"role": "user", "content": str(n)}]} for n in range(9)]
    return data_error(tiny_model("llama"), records, tmp_path)


def max_length(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    records = [{"prompt": f"{n}", "completion": "w" * 90} for n in range(9)]
    return data_error(tiny_model("llama"), records, tmp_path, max_length=20)


def gpu(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "version").write_text("a driver")
    monkeypatch.setattr(planned_device, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    return str(unused_gpu())


def held(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    study = optuna.create_study()
    me = DriverProcess.current("mine")
    theirs = DriverProcess(**{**vars(me), "run": "theirs"})
    study.set_user_attr("lease", Lease(owner=theirs, keeper="another", beat=1).to_text())
    monkeypatch.setattr(DriverProcess, "is_same_process", lambda self, other: False)
    return said(lambda: refuse_if_held(study, me))


def network(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(open_storage, "network_file_system", lambda path: "nfs4")
    return said(lambda: open_storage.open_storage(f"sqlite:///{tmp_path}/study.db"))


def offline(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return said(lambda: meta_model(BaseSpec(model="owner/not-in-the-cache")))


def changed(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    study = optuna.create_study()
    study.set_user_attr("identity", {"max_steps": 10})
    return said(lambda: check_identity(study, {"max_steps": 20}))


def diverged(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("stop_reason", "the loss is not finite")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return str(without_value(study, Status("s", 1, outcomes={"diverged": 1}), tmp_path))


def start(tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    failures, fault = StartFailures(), StartFault.from_error(ModelError("weights are damaged"))
    for _ in range(2):
        failures.record_failure(0, fault, 1)
    return failures.fatal_message(tmp_path).splitlines()[0]


PROVOKED: dict[str, Callable[[Tiny, Path, pytest.MonkeyPatch], str]] = {
    "It does not fit into memory": memory,
    "The tokenizer has no chat template": chat_template,
    "Records are longer than max_length": max_length,
    "An NVIDIA GPU is there and is not used": gpu,
    "Another run holds the study": held,
    "SQLite on a network file system": network,
    "The model is not in the cache, and the machine is offline": offline,
    "The sweep file has changed since the study began": changed,
    "No trial has a value": diverged,
    "No worker can start": start,
}


def test_every_error_of_the_page_is_provoked() -> None:
    assert list(QUOTED) == list(PROVOKED) == re.findall(r"^## (.+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("heading", list(PROVOKED))
def test_the_program_says_what_the_page_quotes(
    heading: str, tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = PROVOKED[heading](tiny_model, tmp_path, monkeypatch)
    pattern = ".+".join(map(re.escape, QUOTED[heading].split("...")))
    assert re.fullmatch(pattern, message), message
