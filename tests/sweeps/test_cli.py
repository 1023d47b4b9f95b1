"""The command line as far as it goes without Ray: exit codes, messages, and what is written."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from sweeps.cli import main
from sweeps.errors import RunFolderError
from sweeps.keeper import Keeper
from sweeps.run_folder import check_run_folder, write_run_folder
from sweeps.sweep import Sweep

SWEEP = """\
name: small
model: {model}
data: {{train: data.jsonl, eval_fraction: 0.2, max_length: 32}}
train_embeddings: true
training: {{max_steps: 100, per_device_train_batch_size: 4}}
trials: 4
output: runs
"""
COMMANDS = (
    "demo",
    "init",
    "plan",
    "run",
    "confirm",
    "status",
    "verdict",
    "report",
    "export",
    "results",
    "dashboard",
    "track",
    "move",
)


@dataclass
class Answer:
    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """`call("plan", "s.yaml")`: the entry point, with its exit code and output."""

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sweep file, its data and a model."""
    monkeypatch.delenv("SWEEPS_STORAGE", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(tiny_model("llama"), folder / "model")
    records = [{"prompt": f"w{i}:", "completion": f"word{i}"[::-1]} for i in range(60)]
    (folder / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (folder / "s.yaml").write_text(SWEEP.format(model="model"))
    return folder


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, and every folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))
    }


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# --- bad input ------------------------------------------------------------------------------------

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


def test_a_confirmation_that_cannot_be_asked_for_names_every_problem(call: Call, folder: Path) -> None:
    answer = call("confirm", folder / "s.yaml", "--margin", "0", "--best", "0", "--hours", "nan")
    assert answer.code == 2
    assert all(name in answer.err for name in ("--best is at least 1; got 0", "the margin", "--hours"))


def test_a_sweep_without_a_finished_trial_has_nothing_to_confirm(call: Call, folder: Path, pack: Any) -> None:
    sweep = Sweep.load(folder / "s.yaml")
    write_run_folder(sweep.config)
    keeper = Keeper(sweep.plan().ledger, sweep.storage_url)
    pack(keeper, lambda config, percent: "diverged").run()
    keeper.close()
    keeper._storage.close()
    answer = call("confirm", folder / "s.yaml")
    assert answer.code == 2
    assert "has no trial that finished its full budget, so there is nothing to confirm" in answer.err
    assert len(answer.err.splitlines()) == 1


# --- run folders ----------------------------------------------------------------------------------


@pytest.fixture
def ran(folder: Path, pack: Any) -> Path:
    """The run folder of a sweep that a simulated pack ran."""
    sweep = Sweep.load(folder / "s.yaml")
    write_run_folder(sweep.config)
    keeper = Keeper(sweep.plan().ledger, sweep.storage_url)
    keeper.register(0, 3.5)
    pack(keeper).run()
    keeper._storage.engine.dispose()
    return sweep.run_folder


def test_a_run_folder_of_another_sweep_is_refused_and_left_alone(call: Call, folder: Path, ran: Path) -> None:
    before = listing(ran)
    answer = call("run", folder / "s.yaml", "--set", "training.max_steps=50")
    assert answer.code == 2
    assert "training.max_steps: the study has 100, this sweep 50" in answer.err
    shutil.copytree(folder / "model", folder / "model2")
    answer = call("run", folder / "s.yaml", "--set", f"model={folder / 'model2'}")
    assert answer.code == 2
    assert "belongs to another sweep" in answer.err
    assert listing(ran) == before


def test_a_folder_with_files_of_someone_else_is_no_run_folder(call: Call, folder: Path) -> None:
    (folder / "runs" / "small").mkdir(parents=True)
    (folder / "runs" / "small" / "thesis.txt").write_text("years of work")
    before = listing(folder)
    answer = call("run", folder / "s.yaml")
    assert answer.code == 2
    assert "it is no run of a sweep" in answer.err
    assert listing(folder) == before


def test_a_run_that_was_killed_at_its_first_write_can_be_started_again(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(run_folder=tmp_path)
    (tmp_path / ".sweep.yaml.0a1b2c3d.tmp").write_text("name: sm")
    check_run_folder(config)
    (tmp_path / "study.db").touch()
    with pytest.raises(RunFolderError, match="it is no run of a sweep"):
        check_run_folder(config)


@pytest.mark.parametrize("path", ["s.yaml", "runs/small"])
def test_status_reads_a_sweep_file_or_a_run_folder(call: Call, folder: Path, ran: Path, path: str) -> None:
    before = listing(folder)
    answer = call("status", folder / path)
    assert answer.code == 0, answer.err
    assert "4 of 4 finished" in answer.out
    assert "untouched base     3.5000" in answer.out
    read = json.loads(call("status", folder / path, "--json").out)
    assert (read["finished"], read["target"]) == (4, 4)
    assert read["best"]["eval_loss"] <= read["default_loss"]
    assert listing(folder) == before


def test_a_sweep_that_never_started_is_said_so_and_not_created(call: Call, folder: Path) -> None:
    before = listing(folder)
    for command in (("status",), ("verdict",), ("report",), ("export", "--to", "yaml")):
        answer = call(command[0], folder / "s.yaml", *command[1:])
        assert answer.code == 2, command
        assert "has no study yet; start it with `sweeps run`" in answer.err
    assert listing(folder) == before


def test_the_verdict_is_printed_and_written(call: Call, ran: Path) -> None:
    answer = call("verdict", ran)
    assert answer.code == 0, answer.err
    assert "scenario.general" in answer.out
    rows = {row["id"] for row in json.loads((ran / "verdict.json").read_text())["rows"]}
    assert "scenario.general" in rows
    assert (ran / "verdict.md").is_file()


def test_replicates_in_the_same_storage_give_the_verdict_its_words(call: Call, ran: Path) -> None:
    sweep = Sweep.load(ran, check_files=False)
    best = sweep.study().best_trial.params
    arms = [
        {"name": "best", "role": "best", "values": best, "rows": []},
        {
            "name": "row",
            "role": "row",
            "values": best | {"learning_rate": 2e-4},
            "rows": ["scenario.general"],
        },
    ]
    confirm = optuna.create_study(storage=sweep.storage_url, study_name="small.confirm")
    confirm.set_user_attr("arms", arms)
    for seed in range(4):
        for loss, entry in zip((2.0, 2.2), arms, strict=True):
            confirm.add_trial(
                optuna.trial.create_trial(
                    value=loss + 0.01 * seed, user_attrs={"arm": entry["name"], "seed": seed}
                )
            )
    answer = call("verdict", ran, "--margin", 1)
    assert answer.code == 0, answer.err
    read = json.loads((ran / "verdict.json").read_text())
    assert read["margin"] == 0.01
    assert read["replicates"]["rounds"] == 4
    assert call("report", ran, "--margin", 1).code == 0
    assert "The margin is 1% of the best" in (ran / "report.html").read_text()
    row = next(row for row in read["rows"] if row["id"] == "scenario.general")
    assert row["comparison"]["effect"] == pytest.approx(0.2)
    assert row["verdict"] in ("too_low", "too_high")
    confirm.set_user_attr("arms", [])
    answer = call("verdict", ran)
    assert answer.code == 2
    assert "is no confirm study" in answer.err


def test_the_report_is_one_file_in_the_run_folder(call: Call, ran: Path) -> None:
    before = listing(ran)
    answer = call("report", ran)
    assert (answer.code, answer.out) == (0, f"wrote {ran / 'report.html'}\n"), answer.err
    assert {name: content for name, content in listing(ran).items() if name != "report.html"} == before
    page = (ran / "report.html").read_text()
    assert "Use learning_rate" in page
    assert (ran / "sweep.yaml").read_text().splitlines()[-1] in page


@pytest.mark.parametrize("command", ["verdict", "report"])
def test_a_margin_that_is_none_is_refused_and_nothing_is_written(call: Call, ran: Path, command: str) -> None:
    before = listing(ran)
    answer = call(command, ran, "--margin", "nan")
    assert (answer.code, answer.out) == (2, "")
    assert "the margin is above 0 and at most 50 percent of the loss; got nan" in answer.err
    assert listing(ran) == before


@pytest.mark.parametrize(
    ("command", "taken"),
    [
        (("verdict",), "verdict.json"),
        (("report",), "report.html"),
        (("export", "--to", "yaml", "--destination", "{}/sweep.yaml"), "sweep.yaml"),
        (("export", "--to", "yaml", "--destination", "{}/sweep.yaml/below"), "sweep.yaml"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line_and_exit_code_2(
    call: Call, ran: Path, command: tuple[str, ...], taken: str
) -> None:
    if not (ran / taken).exists():
        (ran / taken).mkdir()
    before = listing(ran)
    verb, *options = (word.format(ran) for word in command)
    answer = call(verb, ran, *options)
    assert (answer.code, answer.out) == (2, "")
    assert str(ran / taken) in answer.err
    assert len(answer.err.splitlines()) == 1
    assert listing(ran) == before


def test_before_any_trial_has_ended_the_verdict_says_so_and_there_is_nothing_to_export(
    call: Call, folder: Path
) -> None:
    sweep = Sweep.load(folder / "s.yaml")
    write_run_folder(sweep.config)
    keeper = Keeper(sweep.plan().ledger, sweep.storage_url)
    keeper.ask(0, [0])
    keeper._storage.engine.dispose()
    before = listing(sweep.run_folder)
    answer = call("export", sweep.run_folder, "--to", "yaml")
    assert answer.code == 2
    assert "no trial" in answer.err
    assert listing(sweep.run_folder) == before
    answer = call("verdict", sweep.run_folder)
    assert answer.code == 0
    assert "No best config: no trial finished its full budget" in answer.out
    assert call("report", sweep.run_folder).code == 0
    assert "There is no best config" in (sweep.run_folder / "report.html").read_text()


def test_export_writes_the_best_config_once(call: Call, folder: Path, ran: Path) -> None:
    answer = call("export", ran, "--to", "yaml")
    assert answer.code == 0, answer.err
    files = list((ran / "export" / "yaml").iterdir())
    assert files
    assert all(str(file) in answer.out for file in files)
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{ran / 'study.db'}")
    assert str(study.best_trial.user_attrs["config"]["learning_rate"])[:5] in files[0].read_text()
    again = call("export", ran, "--to", "yaml", "--destination", folder / "mine")
    assert again.code == 0, again.err
    (folder / "mine" / files[0].name).write_text("edited by hand")
    refused = call("export", ran, "--to", "yaml", "--destination", folder / "mine")
    assert refused.code == 2
    assert (folder / "mine" / files[0].name).read_text() == "edited by hand"
    assert call("export", ran, "--to", "yaml", "--destination", folder / "mine", "--overwrite").code == 0


def test_what_a_target_cannot_say_is_on_the_terminal_and_strict_refuses_it(
    call: Call, folder: Path, ran: Path
) -> None:
    before = listing(ran)
    refused = call("export", ran, "--to", "llama-factory", "--strict", "--destination", folder / "out")
    assert refused.code == 2
    assert "llama-factory cannot express all of the config" in refused.err
    assert not (folder / "out").exists()
    answer = call("export", ran, "--to", "llama-factory", "--destination", folder / "out")
    assert answer.code == 0, answer.err
    assert "not expressed by llama-factory:" in answer.out
    assert listing(ran) == before
    # Every trainer takes a run, and says which versions it is written for.
    for target in ("trl", "unsloth", "axolotl", "llama-factory"):
        answer = call("export", ran, "--to", target)
        assert answer.code == 0, answer.err
        assert any("\nwarmup_steps: " in file.read_text() for file in (ran / "export" / target).iterdir())
        refused = call(
            "export", ran, "--to", target, "--target-version", "0.1", "--destination", folder / "old"
        )
        assert refused.code == 2
        assert "is written for" in refused.err
    assert not (folder / "old").exists()


def test_an_unknown_export_target_names_the_nearest(call: Call, ran: Path) -> None:
    before = listing(ran)
    answer = call("export", ran, "--to", "transformer")
    assert answer.code == 2
    assert "Did you mean 'transformers'" in answer.err
    assert listing(ran) == before


# --- the rest -------------------------------------------------------------------------------------


def test_plan_fits_the_terminal_and_writes_nothing(call: Call, folder: Path) -> None:
    before = listing(folder)
    answer = call("plan", folder / "s.yaml")
    assert answer.code == 0, answer.err
    assert "4 trials of 100 steps" in answer.out
    assert "scenario.general" in answer.out
    assert max(len(line) for line in answer.out.splitlines()) <= 100
    assert listing(folder) == before


def test_plan_as_json_holds_the_space_and_the_first_trials(call: Call, folder: Path) -> None:
    answer = call("plan", folder / "s.yaml", "--json", "--set", "trials=9")
    assert answer.code == 0, answer.err
    read = json.loads(answer.out)
    assert read["trials"] == 9
    assert read["first_trials"][0]["label"] == "guideline default"
    assert read["space"]["dimensions"][0]["name"] == "learning_rate"


@pytest.mark.parametrize("setting", ["trials", "trials=0", "trails=3", "training.max_steps=x"])
def test_a_bad_setting_is_exit_code_2(call: Call, folder: Path, setting: str) -> None:
    answer = call("plan", folder / "s.yaml", "--set", setting)
    assert answer.code == 2
    assert setting.partition("=")[0] in answer.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(call: Call, command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    assert "Usage" in answer.out
    assert command in call("--help").out


def test_a_misspelt_command_or_option_is_exit_code_2(call: Call, folder: Path) -> None:
    assert call("plann", folder / "s.yaml").code == 2
    assert call("plan", folder / "s.yaml", "--jsonn").code == 2
    assert call("export", folder).code == 2


def test_the_installed_command_ends_with_the_code(folder: Path) -> None:
    edit(folder / "s.yaml", "trials: 4", "trials: four")
    done = subprocess.run(
        [sys.executable, "-m", "sweeps", "plan", "s.yaml"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: s.yaml:6: ")
    assert done.stdout == ""


def test_reading_a_bad_file_does_not_wait_for_torch_or_ray(folder: Path) -> None:
    edit(folder / "s.yaml", "trials: 4", "trials: four")
    script = (
        "import sys\nfrom sweeps.cli import main\n"
        "try:\n    main(['plan', 's.yaml'])\nexcept SystemExit as end:\n"
        "    print(end.code, [name for name in ('torch', 'ray', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.stdout == "2 []\n", done.stdout + done.stderr
