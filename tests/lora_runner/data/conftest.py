"""Small real tokenizers, with and without BOS and chat templates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lora_runner.data import IGNORED, TokenizedExample

SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
LINES = [
    "system user assistant tool human the capital of France is Paris and of Peru it is Lima",
    "what is the answer to the question? the answer is forty two. hello world, hello you",
    "### Task\nGive the answer\n\n### Given\nhello\n\n### Answer\nhello hello  world   \n\n",
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """Build a byte-level BPE tokenizer: `bos` puts <s> before every text, `trim` trims offsets as GPT-2's
    does."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(LINES, trainer)
    state = bpe.to_str()

    def make(
        *, bos: bool = False, chat_template: str | None = None, eos: bool = True
    ) -> PreTrainedTokenizerFast:
        backend = Tokenizer.from_str(state)
        if bos:
            backend.post_processor = processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
            )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token="<s>",
            eos_token="</s>" if eos else None,
            pad_token="<pad>",
            extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        )
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture
def targets() -> Callable[[PreTrainedTokenizerFast, TokenizedExample], list[str]]:
    """Return the text of each run of tokens with loss."""

    def decode(tokenizer: PreTrainedTokenizerFast, example: TokenizedExample) -> list[str]:
        runs: list[list[int]] = []
        before = IGNORED
        for token, label in zip(example.input_ids, example.labels, strict=True):
            assert label in (IGNORED, token)
            if label != IGNORED:
                if before == IGNORED:
                    runs.append([])
                runs[-1].append(token)
            before = label
        return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]

    return decode


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., str]:
    """Write records as JSON lines and return the path."""

    def write(records: list[dict[str, Any]], name: str = "train.jsonl") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return str(path)

    return write
