"""`sweeps export`: what it writes, and what it does not overwrite."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest

from results.answer.answer import Answer
from sweeps.sweep import Sweep
from tests.sweeps.cli.calling import Call, listing


def test_export_writes_the_best_config_once(call: Call, folder: Path, ran: Path) -> None:
    answer = call("export", ran, "--to", "yaml")
    assert answer.code == 0, answer.err
    files = list((ran / "export" / "yaml").iterdir())
    assert files
    assert all(str(file) in answer.out for file in files)
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{ran / 'study.db'}")
    assert str(study.best_trial.user_attrs["config"]["learning_rate"])[:5] in files[0].read_text()
    again = call("export", ran, "--to", "yaml", "--output", folder / "mine")
    assert again.code == 0, again.err
    (folder / "mine" / files[0].name).write_text("edited by hand")
    refused = call("export", ran, "--to", "yaml", "--output", folder / "mine")
    assert refused.code == 2
    assert (folder / "mine" / files[0].name).read_text() == "edited by hand"
    assert call("export", ran, "--to", "yaml", "--output", folder / "mine", "--overwrite").code == 0
    for old in (("--destination", folder / "old"), (f"--destination={folder / 'older'}",)):
        assert call("export", ran, "--to", "yaml", *old).code == 0
    assert {"old", "older"} <= {p.name for p in folder.iterdir()}


def test_what_a_target_cannot_say_is_on_the_terminal_and_strict_refuses_it(
    call: Call, folder: Path, ran: Path
) -> None:
    before = listing(ran)
    refused = call("export", ran, "--to", "llama-factory", "--strict", "--output", folder / "out")
    assert refused.code == 2
    assert "llama-factory cannot express all of the config" in refused.err
    assert not (folder / "out").exists()
    answer = call("export", ran, "--to", "llama-factory", "--output", folder / "out")
    assert answer.code == 0, answer.err
    assert "not expressed by llama-factory:" in answer.out
    told = [line for line in answer.out.splitlines() if not line.startswith("wrote ")]
    assert "note: " in answer.out
    assert max(map(len, told)) <= shutil.get_terminal_size().columns  # broken between words
    assert listing(ran) == before
    # Every trainer takes a run, and says which versions it is written for.
    for target in ("trl", "unsloth", "axolotl", "llama-factory"):
        answer = call("export", ran, "--to", target)
        assert answer.code == 0, answer.err
        written = list((ran / "export" / target).iterdir())
        assert all(str(place) in answer.out for place in written)
        assert any("\nwarmup_steps: " in file.read_text() for file in written if file.suffix == ".yaml")
        refused = call("export", ran, "--to", target, "--target-version", "0.1", "--output", folder / "old")
        assert refused.code == 2
        assert "is written for" in refused.err
    assert not (folder / "old").exists()


def test_a_best_that_lost_on_new_seeds_is_not_exported_without_a_word(
    folder: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "on the seeds of the confirmation the guideline default is better"
    sweep = Sweep.load(ran)
    assert said not in sweep.export("yaml", folder / "one").notes
    monkeypatch.setattr(Answer, "uses_default", True)
    assert sweep.export("yaml", folder / "two").notes[0] == said


def test_an_unknown_export_target_names_the_nearest(call: Call, ran: Path) -> None:
    before = listing(ran)
    answer = call("export", ran, "--to", "transformer")
    assert answer.code == 2
    assert "Did you mean 'transformers'" in answer.err
    assert listing(ran) == before


def test_merge_names_its_folder_without_detours(call: Call, ran: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine").touch()
    answer = call("merge", ran, "--output", tmp_path / "other" / ".." / "merged")
    assert answer.code == 2
    assert f"already there: {tmp_path / 'merged'}. Name another folder with --output" in answer.err
