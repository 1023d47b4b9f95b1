"""`sweeps certify`: its table, its file, its exit codes; and the same from `lora_runner` alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lora_runner.certificate.__main__ import main
from lora_runner.certificate.certificate import KINDS, Certificate
from lora_runner.certificate.ways import products
from lora_runner.layers.block_matmul import matmul_shared
from sweeps.config.load import RESOLVED_NAME
from tests.sweeps.cli.calling import Call, listing


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, so that no test writes to the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "qlora-sweeps" / "certificates"


def breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaks(x: Tensor, *rest: Any) -> Tensor:
        return matmul_shared(x, *rest) + 0.0 * x.sum()

    monkeypatch.setattr(products, "matmul_shared", leaks)


def test_the_layers_of_a_sweep_are_certified(call: Call, folder: Path, cache: Path) -> None:
    before = listing(folder)
    file = cache.parent / "mine.json"
    answer = call("certify", folder / "s.yaml", "--device", "cpu", "--seed", "5", "--output", file)
    assert answer.code == 0, answer.out + answer.err
    rows = {line.split()[0]: line for line in answer.out.splitlines() if line.split()}
    assert all("yes, " in rows[kind] for kind in KINDS)
    assert rows["products"].endswith("chosen")
    assert max(len(line) for line in answer.out.splitlines() if "," in line and "  " in line) <= 100
    made = Certificate.read(file)
    assert made.seed == 5
    assert made.sizes.name.endswith("model")
    assert made.sizes.vocabulary == 256
    (kept,) = cache.glob("*.json")
    assert Certificate.read(kept) == made
    assert listing(folder) == before


def test_a_way_that_fails_is_exit_code_1_with_its_first_difference(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch)
    answer = call("certify", "--model", folder / "model", "--device", "cpu")
    assert answer.code == 1
    assert "products     grouped             no, 0 of " in answer.out
    assert "beside NaN neighbours: " in answer.out
    assert "no way to compute frozen products is invariant on this machine" in answer.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "tpu"], "the device must be one of this machine (cpu"),
        (["--device", "cuda:99"], "got 'cuda:99'"),
        (["--model", "./nowhere"], "model folder './nowhere' does not exist"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["s.yaml", "--model", "model"], "give a sweep file or --model, not both"),
        (["s.yaml", "--set", "trials=0"], "trials"),
        (["--set", "trials=0"], "--set overrides keys of a sweep file, and none is given"),
        (["--model", "model", "--set", "trials=3"], "--set overrides keys of a sweep file"),
        (["--device", "cpu:7"], "got 'cpu:7'"),
        (["s.yaml", "--device", "cpu", "--output", "model"], "model: Is a directory"),
        (["s.yaml", "--device", "cpu", "--output", "s.yaml/c.json"], "s.yaml"),
    ],
)
def test_bad_input_is_exit_code_2_before_anything_is_computed(
    call: Call,
    folder: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("lora_runner.certificate.command.certify", None)
    answer = call("certify", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert not cache.exists()


def test_a_run_folder_gets_the_certificate_of_its_sweeps_dtype(call: Call, folder: Path) -> None:
    run = folder / "small"
    run.mkdir()
    shutil.copytree(folder / "model", run / "model")
    shutil.copy(folder / "data.jsonl", run)
    shutil.copy(folder / "s.yaml", run / RESOLVED_NAME)
    answer = call("certify", run, "--device", "cpu", "--set", "model.compute_dtype=bfloat16")
    assert answer.code == 0, answer.out + answer.err
    (file,) = run.glob("certificate-*.json")
    made = Certificate.read(file)
    assert made.dtype == "bfloat16"
    assert file.name == made.file_name
    assert f"wrote {file}" in answer.out.replace("\n", "")


def test_lora_runner_alone_does_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(folder / "model")
    assert main(["--model", model, "--device", "cpu"]) == 0
    assert "chosen" in capsys.readouterr().out
    assert main(["--model", "./nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: model folder './nowhere' does not exist")
    breaks(monkeypatch)
    assert main(["--model", model, "--device", "cpu"]) == 1
