"""Fixtures shared by all rooms: tiny real models in a folder, as transformers saves them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

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

# The same examples on every run: a finding belongs into a test as an example, not into somebody else's build.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

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
    words = {"<unk>": 0, "<eos>": 1} | {chr(code): code for code in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return folder


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


class PostgreSQL:
    """A server of the tests' own: a cluster in a temporary folder, on loopback, to be stopped and started."""

    def __init__(self, binaries: Path, folder: Path, become: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.folder = folder
        self._binaries, self._become = binaries, become
        self._num_databases = 0
        self._run("initdb", "-D", folder / "data", "-U", "sweeper", "-A", "trust", "--no-sync")

    @property
    def url(self) -> str:
        """Of the database that is there from the beginning; the password is never asked for."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg://sweeper:hush@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        import psycopg

        self._num_databases += 1
        name = f"study{self._num_databases}"
        login = f"host=127.0.0.1 port={self.port} user=sweeper dbname=postgres"
        with closing(psycopg.connect(login, autocommit=True)) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._control("-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """`fast` ends all connections in order; `immediate` is as good as pulling the plug."""
        self._control("-w", "-m", mode, "stop")

    def _control(self, *arguments: str | Path) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", *arguments)

    def _run(self, program: str, *arguments: str | Path) -> None:
        # A server that was started keeps the outputs it is given, so a pipe would never end.
        with open(self.folder / "output", "w+b") as output:
            command = [*self._become, str(self._binaries / program), *map(str, arguments)]
            done = subprocess.run(command, cwd=self.folder, stdout=output, stderr=output, timeout=120)
            output.seek(0)
            assert done.returncode == 0, output.read().decode(errors="replace")


def _postgresql_binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        folders.insert(0, Path(found).resolve().parent)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[PostgreSQL]:
    binaries = _postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed; tests/system-packages.sh does it on Debian")
    become: list[str] = []
    # Short, because a socket's path may have no more than 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if os.geteuid() == 0:
        if shutil.which("runuser") is None:
            pytest.skip("postgres refuses root, and there is no runuser to become someone else")
        become = ["runuser", "-u", "nobody", "--"]
        shutil.chown(folder, "nobody")
    try:
        server = PostgreSQL(binaries, folder, become)
        server.start()
        yield server
        if (folder / "data" / "postmaster.pid").exists():
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql(_postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    """A running server; whatever a test does to it, the next one finds it running."""
    yield _postgresql
    if not (_postgresql.folder / "data" / "postmaster.pid").exists():
        _postgresql.start()
