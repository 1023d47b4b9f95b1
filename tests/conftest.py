"""Fixtures shared by all rooms: tiny real models in a folder, as transformers saves them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from tests.postgresql import NoPostgreSQL, PostgreSQL, running_server
from tests.small_disk import NoMount, mounted

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

# The same examples on every run: a finding belongs into a test as an example, not into somebody else's build.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

LONG_FILES = (
    "tests/test_readme.py",
    "tests/sweeps/test_run.py",
    "tests/sweeps/fleet",
    "tests/chaos",
    "tests/kept",
)
"""They come first, so that of two processes none is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = item.nodeid
        return next((n for n, path in enumerate(LONG_FILES) if name.startswith(path)), len(LONG_FILES))

    items.sort(key=place)


VOCABULARY = 256

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **kw: LlamaConfig(**{**_COMMON, **kw}),
    "qwen2": lambda **kw: Qwen2Config(**{**_COMMON, **kw}),
    "mistral": lambda **kw: MistralConfig(**{**_COMMON, "sliding_window": 6, **kw}),
    "gemma2": lambda **kw: Gemma2Config(**{**_COMMON, "head_dim": 16, "sliding_window": 6, **kw}),
    "gpt2": lambda **kw: GPT2Config(
        **{"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, **kw}
    ),
    "opt": lambda **kw: OPTConfig(
        **{
            **_COMMON,
            "ffn_dim": 128,
            "word_embed_proj_dim": 64,
            "dropout": 0.3,
            "attention_dropout": 0.2,
            **kw,
        }
    ),
    "bloom": lambda **kw: BloomConfig(
        **{"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4, **kw}
    ),
}


def save_tiny_model(folder: Path, kind: str = "llama", **config: Any) -> Path:
    """A random model of `kind` with a byte-sized vocabulary and its tokenizer, the same on every call."""
    torch.manual_seed(0)
    Auto.from_config(_CONFIGS[kind](**config)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """One token for each byte; 1 ends a text and pads."""
    words = {"<unk>": 0, "<eos>": 1} | {chr(code): code for code in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_model("llama", tie_word_embeddings=True)` -> folder, saved once per session and configuration."""
    saved: dict[str, Path] = {}

    def save(kind: str = "llama", **config: Any) -> Path:
        key = repr((kind, sorted(config.items())))
        if key not in saved:
            saved[key] = save_tiny_model(tmp_path_factory.mktemp(kind), kind, **config)
        return saved[key]

    return save


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[PostgreSQL]:
    try:
        with running_server() as server:
            yield server
    except NoPostgreSQL as error:
        pytest.skip(str(error))


@pytest.fixture
def postgresql(_postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    """A running server; whatever a test does to it, the next one finds it running."""
    yield _postgresql
    if not (_postgresql.folder / "data" / "postmaster.pid").exists():
        _postgresql.start()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    try:
        with mounted(tmp_path / "small") as folder:
            yield folder
    except NoMount as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """A headless Chromium, one per session; `tests.browser` has what tests ask it."""
    from tests.browser import open_browser  # selenium is not on every machine that runs some of the tests

    with open_browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver
