"""Whether a model's folder works: its perplexity on known text, and one answer.

Weights read in a wrong order (heads of queries and keys, transposed matrices) or with another tokenizer still
give finite losses, and a sweep on them would still find a best.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lora_runner.errors import ModelError
from sweeps.demo.library_sources import library_root, source_files

PERPLEXITY = (10.0, 30.0)
"""Lowest and highest, per token, on the standard library's documentation. 18.7 was measured. Heads in a wrong
order or another tokenizer give hundreds; below 10 the text would have to be repetitive."""
WINDOW, NUM_WINDOWS = 256, 40
"""Tokens per piece of text, and number of pieces."""
QUESTION, ANSWER = "What is the capital of France?", "Paris"


@dataclass(frozen=True)
class ModelCheck:
    """What was measured."""

    perplexity: float
    answer: str


def check_model(folder: Path, *, root: Path | None = None) -> ModelCheck:
    """Measure the model in `folder` in float32; ModelError when it is not as expected.

    `root` replaces the standard library.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = ModelCheck(perplexity(model, tokenizer, root=root), answer(model, tokenizer, QUESTION))
    low, high = PERPLEXITY
    if not low <= found.perplexity <= high:
        raise ModelError(
            f"the model in {str(folder)!r} has a perplexity of {found.perplexity:.3g} per token on the "
            f"standard library's documentation instead of {low:g} to {high:g}: it was read wrongly"
        )
    if ANSWER not in found.answer:
        raise ModelError(
            f"the model in {str(folder)!r} should answer {ANSWER} to {QUESTION!r}, but answers "
            f"{found.answer!r}"
        )
    return found


def documentation(root: Path) -> Iterator[str]:
    """Docstrings of modules, classes and functions below `root`, in a fixed order, without indentation."""
    for source in source_files(root):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node, clean=False)
                if text and text.strip():
                    yield inspect.cleandoc(text)


@torch.no_grad()
def perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, root: Path | None = None
) -> float:
    """exp of the mean loss over NUM_WINDOWS pieces of WINDOW tokens, evenly spread over the documentation."""
    ids = tokenizer("\n\n".join(documentation(root or library_root())), verbose=False)["input_ids"]
    pieces = torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)
    chosen = pieces[:: max(1, len(pieces) // NUM_WINDOWS)][:NUM_WINDOWS]
    losses = [model(input_ids=batch, labels=batch).loss for batch in chosen.split(1)]
    return math.exp(float(torch.stack(losses).mean()))


@torch.no_grad()
def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The greedy answer to one question through the chat template."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    text: str = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()
