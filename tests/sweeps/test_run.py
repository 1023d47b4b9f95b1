"""A sweep from file to answer on a real Ray, a real NF4 base, and a real study."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
import torch
from optuna.trial import TrialState
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_runner.base.load_model import BaseSpec, load_tokenizer
from lora_runner.config import TrialConfig
from lora_runner.data import BatchPlan, TokenizedSet, load_data
from results.best import read_best_config
from results.errors import ExportError, WouldOverwrite
from results.merged_model import read_merged_model
from sweeps.cli.merge_adapter import merge_best
from sweeps.errors import ConfigError, RunFolderError, StartRefused, StudyMismatch
from sweeps.fleet.ray_start import start_ray
from sweeps.sweep import Sweep
from tests.lora_runner.plain_models import plain_nf4
from tests.on_ray import ON_RAY
from tests.terminal import in_terminal

pytestmark = ON_RAY
SWEEP = """\
name: small
model: {model}
data: {{train: {data}, eval_fraction: 0.2, max_length: 32}}
train_embeddings: true
space:
  learning_rate: {{low: 1.0e-4, high: 3.0e-2, log: true}}
training:
  max_steps: {max_steps}
  per_device_train_batch_size: 4
  report_at: [0.2, 0.4, 0.7, 1.0]
lora: {{r: 4, alpha: 8}}
search: {{seed: 3}}
trials: {trials}
seats: 3
output: {output}
"""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray starts once for this module."""
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def sweep_file(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]
) -> Callable[..., Path]:
    """Writes a sweep file over the tiny model and data with a pattern that can be learned."""
    folder = tmp_path_factory.mktemp("sweep")
    words = ["".join(chr(97 + (i * k + k) % 26) for k in range(3 + i % 5)) for i in range(1, 161)]
    records = [{"prompt": f"{word}{i}:", "completion": word[::-1], "id": i} for i, word in enumerate(words)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")

    def write(output: Path, trials: int = 8, max_steps: int = 10) -> Path:
        file = output / "small.yaml"
        output.mkdir(parents=True, exist_ok=True)
        file.write_text(
            SWEEP.format(
                model=tiny_model("llama"), data=data, output=output, trials=trials, max_steps=max_steps
            ),
            encoding="utf-8",
        )
        return file

    return write


@pytest.fixture(scope="module")
def finished(
    local_ray: None, sweep_file: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Sweep, Path]:
    """A sweep of eight trials that ran to its end."""
    file = sweep_file(tmp_path_factory.mktemp("runs"))
    sweep = Sweep.load(file)
    result = sweep.run()
    assert result.added == 8
    return sweep, file


def counts(study: optuna.Study) -> dict[str, int]:
    seen: dict[str, int] = {}
    for trial in study.get_trials(deepcopy=False):
        seen[trial.state.name] = seen.get(trial.state.name, 0) + 1
    return seen


def test_every_trial_ends_in_an_honest_state_with_its_reason(finished: tuple[Sweep, Path]) -> None:
    trials = finished[0].study().get_trials()
    ended = [t for t in trials if t.state != TrialState.WAITING]
    assert len(ended) == 8
    assert {t.state for t in ended} == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in ended:
        assert trial.user_attrs["stop_reason"]
        assert trial.intermediate_values
        if trial.state == TrialState.COMPLETE:
            assert list(trial.intermediate_values) == [20, 40, 70, 100]
            assert trial.intermediate_values[100] == trial.value
        else:
            assert max(trial.intermediate_values) < 100
            assert ", rank " in trial.user_attrs["stop_reason"]


def test_the_guideline_default_is_the_first_trial_and_has_its_full_budget(
    finished: tuple[Sweep, Path],
) -> None:
    first = finished[0].study().trials[0]
    assert first.user_attrs["label"] == "guideline default"
    assert first.state == TrialState.COMPLETE
    assert first.params["learning_rate"] == pytest.approx(2e-4)


def test_the_best_adapter_gives_its_reported_loss_in_plain_transformers_and_peft(
    finished: tuple[Sweep, Path],
) -> None:
    sweep, _ = finished
    study = sweep.study()
    config = sweep.config
    base = BaseSpec(model=config.model.name)
    data = load_data(config.data, load_tokenizer(base))
    plain = plain_nf4(config.model.name)
    tuned = PeftModel.from_pretrained(plain, str(sweep.run_folder / "best"))
    # Training mode keeps bitsandbytes off its approximate CPU kernels; nothing in this model drops out.
    tuned.train()
    assert mean_loss(tuned, data.eval) == pytest.approx(study.best_value, rel=1e-5)
    assert study.best_value < 0.97 * study.user_attrs["base_eval_loss"]
    unquantized = study.user_attrs["base_unquantized"]["eval_loss"]
    assert unquantized == pytest.approx(study.user_attrs["base_eval_loss"], rel=0.05)
    assert unquantized != study.user_attrs["base_eval_loss"]


def mean_loss(model: Any, examples: TokenizedSet) -> float:
    total, count = 0.0, 0
    with torch.no_grad():
        for example in examples.examples:
            ids, labels = torch.tensor([list(example.input_ids)]), torch.tensor([list(example.labels)])
            loss = model(input_ids=ids, labels=labels).loss
            predicted = int((labels[:, 1:] != -100).sum())
            total, count = total + float(loss) * predicted, count + predicted
    return total / count


def mean_over_records(file: Path) -> float:
    kept = json.loads(file.read_text())
    assert len(kept["nats"]) == len(kept["tokens"]) > 1
    return float(sum(kept["nats"]) / sum(kept["tokens"]))


def test_the_run_folder_holds_what_the_docs_say(finished: tuple[Sweep, Path]) -> None:
    folder = finished[0].run_folder
    names = {path.name for path in folder.iterdir()}
    written = {"sweep.yaml", "study.db", "trials", "trials.csv", "verdict.json", "verdict.md", "report.html"}
    assert written | {"best"} <= names
    assert "progress.json" not in names, "nothing runs any more"
    status = finished[0].status()
    assert not status.is_live
    assert re.fullmatch(r"\d+ CPU cores?|.*NVIDIA.*", status.devices[0])
    assert status.run_seconds is not None
    assert status.run_seconds > 1
    assert (folder / "best" / "config.yaml").is_file()
    tokenizer = load_tokenizer(BaseSpec(model=finished[0].config.model.name))
    served = AutoTokenizer.from_pretrained(folder / "best")
    assert served("a text").input_ids == tokenizer("a text").input_ids
    assert served.chat_template == tokenizer.chat_template
    trial = folder / "trials" / "0000"
    reports = [json.loads(line) for line in (trial / "reports.jsonl").read_text().splitlines()]
    assert [report["percent"] for report in reports] == [20, 40, 70, 100]
    for done in finished[0].study().trials:
        kept = folder / "trials" / f"{done.number:04d}" / "record_losses.json"
        assert kept.is_file() == (done.state == TrialState.COMPLETE)
        if done.state == TrialState.COMPLETE:
            assert mean_over_records(kept) == pytest.approx(done.value, rel=1e-6)
    rows = {row["id"]: row for row in json.loads((folder / "verdict.json").read_text())["rows"]}
    assert rows["scenario.general"]["position"] in {"inside", "above", "below"}


def test_running_again_adds_nothing_and_more_trials_add_the_difference(
    finished: tuple[Sweep, Path], sweep_file: Callable[..., Path]
) -> None:
    sweep, file = finished
    before = {t.number: t.value for t in sweep.study().trials if t.state.is_finished()}
    assert Sweep.load(file).run().added == 0
    assert Sweep.load(sweep.run_folder).run().added == 0
    assert Sweep.load(file, {"trials": 11}).run().added == 3
    after = {t.number: t.value for t in sweep.study().trials if t.state.is_finished()}
    assert len(after) == 11
    assert {number: after[number] for number in before} == before


def test_a_sweep_moved_to_postgresql_goes_on_as_the_one_that_stayed(
    finished: tuple[Sweep, Path], postgresql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, _ = finished
    folders = [tmp_path / name / "small" for name in ("moved", "stayed")]
    for folder in folders:
        shutil.copytree(sweep.run_folder, folder)
    monkeypatch.setenv("MOVED_TO", postgresql.new_database())
    Sweep.load(folders[0]).move("env:MOVED_TO")
    ends = []
    for folder in folders:
        went_on = Sweep.load(folder, {"trials": 14})
        assert went_on.run().added > 0
        trials = [t for t in study_trials(went_on) if t.state.is_finished()]
        ends.append([(t.number, t.state, t.value, t.params, t.intermediate_values) for t in trials])
    assert ends[0] == ends[1]
    assert len(ends[0]) == 14
    assert Sweep.load(folders[0]).storage_url.startswith("postgresql")


def test_a_changed_sweep_is_refused_and_nothing_changes(finished: tuple[Sweep, Path]) -> None:
    sweep, file = finished
    kept = {p: p.stat().st_mtime_ns for p in sweep.run_folder.rglob("*") if p.is_file()}
    with pytest.raises(StudyMismatch, match=r"training.max_steps: the study has 10, this sweep 12"):
        Sweep.load(file, {"training.max_steps": 12}).run()
    assert {p: p.stat().st_mtime_ns for p in sweep.run_folder.rglob("*") if p.is_file()} == kept


def test_a_copied_run_folder_stands_on_its_own(finished: tuple[Sweep, Path], tmp_path: Path) -> None:
    sweep, _ = finished
    copy = tmp_path / "small"
    shutil.copytree(sweep.run_folder, copy)
    assert Sweep.load(copy).run_folder == copy
    (copy / "study.db").unlink()
    with pytest.raises(RunFolderError, match="has no study yet"):
        Sweep.load(copy).study()
    renamed = copy.rename(tmp_path / "other")
    assert Sweep.load(renamed).run_folder == renamed


def test_results_are_read_where_model_and_data_are_gone(finished: tuple[Sweep, Path], tmp_path: Path) -> None:
    sweep, _ = finished
    copy = tmp_path / "small"
    shutil.copytree(sweep.run_folder, copy)
    kept = copy / "sweep.yaml"
    kept.write_text(kept.read_text().replace(sweep.config.data.train, str(tmp_path / "gone.jsonl")))
    with pytest.raises(ConfigError, match=r"gone\.jsonl"):
        Sweep.load(copy)
    answer = Sweep.load(copy, check_files=False).verdict(write=False)
    assert answer.best is not None
    assert answer.best.eval_loss == sweep.study().best_value


def test_two_workers_share_a_machine_without_gpus_and_change_no_trial(
    local_ray: None, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    # Long enough for a worker that starts some seconds after the other to find trials left.
    file = sweep_file(tmp_path / "files", max_steps=120)
    values = []
    for workers in (1, 2):
        output = {"output": str(tmp_path / f"{workers}"), "search.sampler": "random"}
        sweep = Sweep.load(file, {"workers": workers, **output})
        sweep.run()
        trials = sweep.study().get_trials(deepcopy=False)
        assert {trial.user_attrs["worker"] for trial in trials} == set(range(workers))
        values.append({t.number: t.value for t in trials if t.state == TrialState.COMPLETE})
    both = values[0].keys() & values[1].keys()
    assert len(both) >= 2
    assert all(values[0][number] == pytest.approx(values[1][number], rel=1e-5) for number in both)


def test_a_fleet_that_cannot_be_had_is_refused_before_anything_is_written(
    local_ray: None, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(tmp_path / "files")
    with pytest.raises(ConfigError, match="workers is 4, but the cluster has no GPU"):
        Sweep.load(file, {"workers": 4, "output": str(tmp_path / "out")}).run()
    assert not (tmp_path / "out").exists()


def test_a_model_that_goes_between_plan_and_run_ends_the_sweep_at_once(
    local_ray: None, sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sweep_file(tmp_path / "files", trials=1, max_steps=2)
    model = tmp_path / "model"
    shutil.copytree(Sweep.load(file).config.model.name, model)
    changes = {"model": str(model), "training.report_at": [1.0], "output": str(tmp_path / "out")}
    sweep = Sweep.load(file, changes)
    plan, weights = sweep.plan, model / "model.safetensors"

    def planned(*arguments: Any) -> Any:
        blueprint = plan(*arguments)
        weights.rename(tmp_path / "kept")
        return blueprint

    monkeypatch.setattr(sweep, "plan", planned)
    with pytest.raises(StartRefused, match=f"no worker can start: .*{re.escape(str(model))}") as refused:
        sweep.run()
    assert refused.value.exit_code == 2
    assert len(str(refused.value).splitlines()) <= 3
    assert "Traceback" in (sweep.run_folder / "start_error.txt").read_text()


def test_a_sweep_is_confirmed_on_new_seeds_and_the_same_call_goes_on(
    finished: tuple[Sweep, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "small"
    shutil.copytree(finished[0].run_folder, copy)
    sweep = Sweep.load(copy)
    before = [(t.number, t.value) for t in sweep.study().trials]
    result = sweep.confirm(rows=False, trials=6)
    assert (result.progress.added, result.progress.interrupted) == (6, False)
    study = sweep.replicates()
    assert study is not None
    train = sweep.plan().worker_spec.data.train
    orders: dict[int, set[tuple[int, ...]]] = {}
    for trial in study.trials:
        config = TrialConfig.from_dict(trial.user_attrs["config"])
        assert config.seed == trial.user_attrs["seed"] != sweep.config.training.seed
        assert trial.state == TrialState.COMPLETE
        stream = BatchPlan(train=train, batch_size=config.per_device_train_batch_size, seed=config.seed)
        order = tuple(index for batch in range(config.max_steps) for index in stream.indices_at(batch))
        orders.setdefault(config.seed, set()).add(order)
    assert [len(seen) for seen in orders.values()] == [1, 1, 1], "one order for both arms of a seed"
    assert len(set.union(*orders.values())) == 3, "and another one for every seed"
    losses = [trial.value for trial in study.trials]
    assert len(set(losses)) == 6
    written = json.loads((copy / "verdict.json").read_text())
    assert [arm["runs"] for arm in written["replicates"]["arms"]] == [3, 3]
    assert [arm["name"] for arm in written["replicates"]["arms"]] == ["best", "guideline default"]
    kept = copy / "confirm" / "trials" / "0005" / "record_losses.json"
    assert mean_over_records(kept) == pytest.approx(study.trials[5].value, rel=1e-6)
    assert [(t.number, t.value) for t in sweep.study().trials] == before
    again = sweep.confirm(rows=False, trials=6)
    assert again.progress.added == 0
    assert again.verdict.replicates == result.verdict.replicates
    assert result.verdict.replicates is not None
    found = result.verdict.replicates.comparisons["guideline default"]
    # A margin of just the difference: whether it is larger is open again.
    more = sweep.confirm(rows=False, trials=8, margin=found.percent(found.effect) / 100)  # type: ignore[operator]
    assert more.progress.added == 2
    assert [trial.value for trial in sweep.replicates().trials][:6] == losses  # type: ignore[union-attr]


def test_ctrl_c_keeps_finished_trials_and_the_same_command_goes_on(
    sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    """In a terminal, with SIGINT to the whole process group, as it sends it; the values equal an undisturbed
    run's. Continued without a terminal.
    """
    file = sweep_file(tmp_path / "broken", trials=6, max_steps=120)
    sweep = Sweep.load(file)
    command = [sys.executable, "-m", "sweeps", "run", str(file)]
    screens: list[str] = []

    def interrupt(lines: list[str], process: subprocess.Popen[bytes]) -> None:
        screens.append("\n".join(lines))
        if "Leads " in screens[-1] and not any("Leads " in screen for screen in screens[:-1]):
            os.killpg(process.pid, signal.SIGINT)

    seen = in_terminal(command, on_screen=interrupt, seconds=240)
    assert seen.code == 130, seen.text
    everything = "\n".join(screens)
    for stage in ("importing torch", "starting Ray", "starting the workers"):
        assert stage in everything
    assert re.search(r"^. \d +\S.* \d+/120 ", everything, re.MULTILINE)  # a trial, its values, its steps
    assert re.search(r"Stopping: \d running trials? writes? ", everything)
    # The screen is gone; what a reader should know of the data stays, and what happened.
    assert "━" not in seen.text
    assert seen.lines[0] == "columns not used: id"
    assert seen.lines[1].startswith("Stopped. ")
    left = study_trials(sweep)
    assert any(t.state == TrialState.RUNNING for t in left), [t.state for t in left]
    status = sweep.status()
    assert (status.is_live, status.states.get("RUNNING")) == (False, None)
    assert status.next_command is not None
    assert {trial.state for trial in status.running} == {"paused"}
    assert any(trial.step for trial in status.running), "nothing was saved"

    again = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stdout + again.stderr
    log = again.stdout.partition("\nDone: ")[0].splitlines()
    assert [line for line in log if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line)] == [
        "columns not used: id"
    ]
    assert any(re.search(r"\] trial \d: complete, loss .*; learning_rate ", line) for line in log)
    undisturbed = sweep_file(tmp_path / "whole", trials=6, max_steps=120)
    whole = subprocess.run([*command[:-1], str(undisturbed)], capture_output=True, text=True, timeout=240)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    ended = [t for t in study_trials(sweep) if t.state != TrialState.WAITING]
    assert [t.state.is_finished() for t in ended] == [True] * 6
    compared = []
    for mine, theirs in zip(ended, study_trials(Sweep.load(undisturbed)), strict=False):
        # What the sampler draws may depend on which trial ended first; equal configs must give equal losses.
        if mine.state == theirs.state == TrialState.COMPLETE and mine.params == theirs.params:
            assert mine.value == theirs.value
            compared.append(mine.number)
    assert 0 in compared, "the guideline default is never pruned, so it is there to compare"
    assert any(t.user_attrs["attempt"] > 1 for t in ended), "no trial went on after the interruption"


def study_trials(sweep: Sweep) -> list[Any]:
    from sweeps.study.study import peek

    study = peek(sweep.storage_url, sweep.config.name)
    return [] if study is None else study.get_trials(deepcopy=False)


def test_the_best_adapter_is_merged_on_request_and_a_merge_that_fails_leaves_nothing(
    finished: tuple[Sweep, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, _ = finished
    found = merge_best(sweep)
    merged = sweep.run_folder.absolute() / "best" / "merged"
    assert found.folder == merged
    exact = merge_best(sweep, tmp_path / "float32", dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(sweep.config.model.name, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(plain, str(sweep.run_folder / "best"))
    ids = torch.arange(2, 20)[None]
    for one, dtype, away in ((found, torch.bfloat16, 3e-2), (exact, torch.float32, 1e-4)):
        stored = load_file(one.folder / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {dtype}
        model = AutoModelForCausalLM.from_pretrained(one.folder, dtype=torch.float32)
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, adapted(ids).logits, atol=away, rtol=away)
    data = load_data(sweep.config.data, load_tokenizer(BaseSpec(model=sweep.config.model.name)))
    assert exact.loss == pytest.approx(mean_loss(adapted, data.eval), rel=1e-5)
    assert found.loss == pytest.approx(exact.loss, rel=1e-2)
    assert found.loss != exact.loss
    assert found.adapter_loss == sweep.study().best_value != exact.loss
    said = found.lines()
    assert said[0] == f"wrote {merged}, in bfloat16"
    assert re.fullmatch(
        r"loss \d\.\d{3} on the sweep's evaluation records; the adapter on the NF4 base has \d\.\d{3}",
        said[1],
    )
    kept = read_merged_model(sweep.run_folder)
    assert kept is not None
    assert (kept.dtype, kept.loss, kept.folder) == ("float32", exact.loss, str(exact.folder))
    assert kept.trial == sweep.study().best_trial.number
    assert sweep.answer.merged is not None
    assert read_best_config(sweep.run_folder / "best")["result"]["merged_eval_loss"] == exact.loss
    for page in ("verdict.md", "report.html"):
        assert "best merged in float32" in (sweep.run_folder / page).read_text()
    assert merged.is_dir()  # the results that were written with a loss did not remove the model
    assert merge_best(sweep, tmp_path / "unknown", measure=False).loss is None
    assert read_merged_model(sweep.run_folder) is None
    assert "best merged in" not in (sweep.run_folder / "report.html").read_text()
    with pytest.raises(WouldOverwrite):
        merge_best(sweep)
    shutil.rmtree(merged)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ExportError, match="could not be merged into its base: exit code 1"):
        merge_best(sweep, tmp_path / "there")
    assert list(tmp_path.glob("*there*")) == []
