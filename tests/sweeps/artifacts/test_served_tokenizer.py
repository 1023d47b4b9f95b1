"""The template that the trials were trained with goes with the adapter, as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lora_runner.data import resolve_chat_template
from sweeps.artifacts.served_tokenizer import save_tokenizer
from sweeps.config import load_sweep
from sweeps.plan.build_blueprint import build_blueprint

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SWEEP = """\
name: small
model: {model}
data: {{train: data.jsonl, eval_fraction: 0.2, chat_template: {template}}}
training: {{max_steps: 10}}
trials: 2
"""
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.fixture
def context(tmp_path: Path, tiny_model: Callable[..., Path]) -> Callable[[str, dict[str, object]], object]:
    """`context(template, record)`: what the study of a sweep with this template would say of it."""

    def of(template: str, record: dict[str, object]) -> object:
        (tmp_path / "chat.jinja").write_text(TEMPLATE)
        lines = [json.dumps(record | {"id": number}) for number in range(20)]
        texts = [line.replace("hello", f"hello {number}") for number, line in enumerate(lines)]
        (tmp_path / "data.jsonl").write_text("\n".join(texts))
        (tmp_path / "s.yaml").write_text(SWEEP.format(model=tiny_model("llama"), template=template))
        return build_blueprint(load_sweep(tmp_path / "s.yaml")).study_spec.context["chat_template"]

    return of


def test_the_study_holds_the_text_and_not_the_files_name(context, tiny_model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    assert context("chat.jinja", {"messages": TURNS}) == TEMPLATE
    assert context("chatml", {"messages": TURNS}) == resolve_chat_template("chatml", tokenizer)
    # Nothing was printed with it.
    assert context("chat.jinja", {"prompt": "hi ", "completion": "hello"}) is None


def test_the_saved_tokenizer_prompts_as_the_trials_were(tmp_path: Path, tiny_model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    own = tokenizer.chat_template
    assert save_tokenizer(tokenizer, TEMPLATE, tmp_path / "with") is None
    assert save_tokenizer(tokenizer, None, tmp_path / "own") is None
    assert tokenizer.chat_template == own
    served = AutoTokenizer.from_pretrained(tmp_path / "with")
    prompt = served.apply_chat_template(TURNS[:1], add_generation_prompt=True, tokenize=False)
    assert prompt == f"<user>hi{tokenizer.eos_token}\n<assistant>"
    assert AutoTokenizer.from_pretrained(tmp_path / "own").chat_template == own
    assert served("hello there").input_ids == tokenizer("hello there").input_ids


def test_a_tokenizer_that_cannot_be_saved_is_said_and_costs_nothing(tmp_path: Path) -> None:
    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            raise NotImplementedError("no vocabulary file")

    said = save_tokenizer(Broken(), None, tmp_path)
    assert said == "best/ gets no tokenizer, it cannot be saved: NotImplementedError: no vocabulary file"
