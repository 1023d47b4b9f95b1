"""Run folders and studies that version 0.1 wrote at 5793978, put back as they were.

    journal/   its driver was killed (SIGKILL) half-way: 2 trials complete, 1 pruned, 2 running, one of them
               with a checkpoint; the study's lease was never released
    sqlite/    the same, ended by SIGINT: both running trials have checkpoints, the lease is released
    confirm/   a finished sweep and the six runs of its confirmation
    expected.json   what that version's `status`, `run`, `confirm` and `verdict` made of them

Texts hold @HOME@ where the sweep's folder stood, since a study knows its base model by its path. Studies are
compressed; that of sqlite/ is SQL text.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

KEPT = Path(__file__).parent
EXPECTED = json.loads((KEPT / "expected.json").read_text(encoding="utf-8"))
HOME = "@HOME@"
VOCABULARY, WIDTH, INTERMEDIATE, KEYS = 256, 64, 128, 32
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "dtype": "float32",
    "eos_token_id": 1,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "initializer_range": 0.02,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 256,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "pad_token_id": 1,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}
"""Every byte of config.json counts: the study's digest of the base covers it."""
LAYER = "model.layers.0."
SHAPES: dict[str, tuple[int, ...]] = {
    "lm_head.weight": (VOCABULARY, WIDTH),
    "model.embed_tokens.weight": (VOCABULARY, WIDTH),
    "model.norm.weight": (WIDTH,),
    LAYER + "input_layernorm.weight": (WIDTH,),
    LAYER + "post_attention_layernorm.weight": (WIDTH,),
    LAYER + "self_attn.q_proj.weight": (WIDTH, WIDTH),
    LAYER + "self_attn.k_proj.weight": (KEYS, WIDTH),
    LAYER + "self_attn.v_proj.weight": (KEYS, WIDTH),
    LAYER + "self_attn.o_proj.weight": (WIDTH, WIDTH),
    LAYER + "mlp.gate_proj.weight": (INTERMEDIATE, WIDTH),
    LAYER + "mlp.up_proj.weight": (INTERMEDIATE, WIDTH),
    LAYER + "mlp.down_proj.weight": (WIDTH, INTERMEDIATE),
}
"""In the order in which their numbers were drawn."""


def restore(kind: str, home: Path) -> Path:
    """The run folder `kind` below `home`, with the base model and the data that it needs."""
    build_base(home)
    run_folder = home / "runs" / kind
    shutil.copytree(KEPT / kind, run_folder)
    for packed in run_folder.glob("study.*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    for file in run_folder.rglob("*"):
        if file.suffix in (".yaml", ".log", ".sql", ".json", ".jsonl"):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace(HOME, str(home)), encoding="utf-8")
    statements = run_folder / "study.sql"
    if statements.is_file():
        connection = sqlite3.connect(run_folder / "study.db")
        connection.executescript(statements.read_text(encoding="utf-8"))
        connection.close()
        statements.unlink()
    return run_folder


def build_base(home: Path) -> Path:
    """The base of 70,000 parameters, its tokenizer and 60 records, from integer arithmetic alone.

    A library's random numbers may change with its version, and the study holds a digest of the weights.
    """
    base = home / "base"
    base.mkdir(parents=True, exist_ok=True)
    weights = {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else (np.float32(0.0625) * uniform(int(np.prod(shape)), salt)).reshape(shape)
        for salt, (name, shape) in enumerate(SHAPES.items())
    }
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    (base / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    vocabulary = {"<unk>": 0, "<eos>": 1} | {chr(code): code for code in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    ).save_pretrained(base)
    words = ["".join(chr(97 + (i * k + k) % 26) for k in range(3 + i % 5)) for i in range(1, 61)]
    records = [{"prompt": f"{word}{i}:", "completion": word[::-1]} for i, word in enumerate(words)]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (home / "data.jsonl").write_text(text, encoding="utf-8")
    return base


def uniform(count: int, salt: int) -> NDArray[Any]:
    """`count` float32 numbers in [-1, 1): splitmix64 of the salt and the index."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(salt << 32)
    with np.errstate(over="ignore"):
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
