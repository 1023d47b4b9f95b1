"""The demo's base: built once, complete or not at all, and loadable by transformers."""

from __future__ import annotations

import json
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from files_and_text.user_cache import user_cache
from sweeps.demo.base_model import BaseRecipe, base_folder, build_base
from sweeps.demo.model_cache import RECORD_NAME, is_built


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != RECORD_NAME}


def test_transformers_loads_the_folder_and_text_survives_the_tokenizer(
    long_library: Path, small_recipe: BaseRecipe, tmp_path: Path
) -> None:
    folder = build_base(tmp_path / "cache", recipe=small_recipe, source_root=long_library)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) == model.config.vocab_size == 300
    for text in [
        "def wind(self, turns=1):\n        return turns\n",
        "  é \t日本 🕰 end . \n\n",
        ' """Say so .',
    ]:
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    ids = tokenizer("turn the wheel", return_tensors="pt").input_ids
    assert math.isfinite(model(input_ids=ids, labels=ids).loss.item())


def test_every_input_width_of_a_linear_layer_is_whole_nf4_blocks(
    long_library: Path, small_recipe: BaseRecipe, tmp_path: Path
) -> None:
    full = BaseRecipe()
    assert full.hidden_size % 64 == full.intermediate_size % 64 == 0
    folder = build_base(tmp_path / "cache", recipe=small_recipe, source_root=long_library)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert all(layer.in_features % 64 == 0 for layer in model.modules() if isinstance(layer, torch.nn.Linear))


def test_training_lowers_the_loss_and_the_record_tells(
    long_library: Path, small_recipe: BaseRecipe, tmp_path: Path
) -> None:
    stages: list[tuple[str, int, int]] = []
    recipe = replace(small_recipe, max_steps=40)
    folder = build_base(
        tmp_path / "cache",
        recipe=recipe,
        source_root=long_library,
        progress=lambda stage, done, total: stages.append((stage, done, total)),
    )
    record = json.loads((folder / RECORD_NAME).read_text())["record"]
    assert record["last_train_loss"] < record["unigram_loss"] < record["first_train_loss"]
    assert record["held_out_loss"] < record["unigram_loss"]
    assert stages[0] == ("tokenizer", 0, 1)
    assert stages[-1] == ("pretraining", 40, 40)


def test_a_second_call_builds_nothing(long_library: Path, small_recipe: BaseRecipe, tmp_path: Path) -> None:
    def refuse(stage: str, done: int, total: int) -> None:
        raise AssertionError("built again")

    first = build_base(tmp_path / "cache", recipe=small_recipe, source_root=long_library)
    assert build_base(tmp_path / "cache", recipe=small_recipe, progress=refuse) == first
    with pytest.raises(AssertionError, match="built again"):  # another recipe is another base
        build_base(tmp_path / "cache", recipe=replace(small_recipe, seed=1), progress=refuse)


def test_two_builds_are_equal_and_leave_the_callers_generator_alone(
    long_library: Path, small_recipe: BaseRecipe, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    first = build_base(tmp_path / "one", recipe=small_recipe, source_root=long_library)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = build_base(tmp_path / "two", recipe=small_recipe, source_root=long_library)
    assert files_of(first) == files_of(second)


def test_an_interrupted_build_leaves_nothing_and_the_next_one_succeeds(
    long_library: Path, small_recipe: BaseRecipe, tmp_path: Path
) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("pretraining", 3):
            raise KeyboardInterrupt

    cache = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        build_base(cache, recipe=small_recipe, source_root=long_library, progress=interrupt)
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    assert is_built(build_base(cache, recipe=small_recipe, source_root=long_library))


def test_leftovers_of_a_killed_build_and_a_damaged_base_are_replaced(
    long_library: Path, small_recipe: BaseRecipe, tmp_path: Path
) -> None:
    folder = build_base(tmp_path / "cache", recipe=small_recipe, source_root=long_library)
    sound = files_of(folder)
    left = folder.parent / f".{folder.name}.killed.tmp"
    left.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    assert not is_built(folder)
    assert build_base(tmp_path / "cache", recipe=small_recipe, source_root=long_library) == folder
    assert files_of(folder) == sound
    assert not left.exists()


def test_too_little_text_is_named(small_recipe: BaseRecipe, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="at least one batch of 4 sequences, and the text gives 0"):
        build_base(tmp_path / "cache", recipe=small_recipe, source_root=tmp_path)


def test_the_cache_follows_xdg_and_ignores_a_relative_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "qlora-sweeps"
    assert base_folder().parent == user_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache() == Path.home() / ".cache" / "qlora-sweeps"


def _build_and_log(cache: Path, recipe: BaseRecipe, library: Path, log: Path) -> None:
    def note(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("pretraining", 1):
            with log.open("a") as file:
                file.write("built\n")

    build_base(cache, recipe=recipe, source_root=library, progress=note)


@pytest.mark.slow
def test_of_two_processes_one_builds(long_library: Path, small_recipe: BaseRecipe, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    arguments = (tmp_path / "cache", small_recipe, long_library, log)
    processes = [context.Process(target=_build_and_log, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text() == "built\n"


@pytest.mark.slow
def test_the_full_base_has_learnt_more_than_token_frequencies() -> None:
    folder = build_base()
    described = json.loads((folder / RECORD_NAME).read_text())
    assert 4_500_000 < described["record"]["num_parameters"] < 5_500_000
    assert described["record"]["held_out_loss"] < described["record"]["unigram_loss"] - 0.7
