"""The template that the trials were trained with goes with the adapter, as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lora_runner.data import resolve_chat_template
from sweeps.config import load_sweep
from sweeps.plan.build_blueprint import build_blueprint
from sweeps.run.served_tokenizer import served_tokenizer

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


def test_the_saved_tokenizer_prompts_as_the_trials_were(tiny_model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("llama"))
    own = tokenizer.chat_template
    with served_tokenizer(tokenizer, TEMPLATE, pytest.fail) as folder:
        served = AutoTokenizer.from_pretrained(folder)
    with served_tokenizer(tokenizer, None, pytest.fail) as folder:
        assert AutoTokenizer.from_pretrained(folder).chat_template == own
    assert tokenizer.chat_template == own
    prompt = served.apply_chat_template(TURNS[:1], add_generation_prompt=True, tokenize=False)
    assert prompt == f"<user>hi{tokenizer.eos_token}\n<assistant>"
    assert served("hello there").input_ids == tokenizer("hello there").input_ids


def test_a_tokenizer_that_cannot_be_saved_is_said_and_costs_nothing() -> None:
    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            raise NotImplementedError("no vocabulary file")

    said: list[str] = []
    with served_tokenizer(Broken(), None, said.append) as folder:
        assert list(folder.iterdir()) == []
    assert said == [
        "best/ gets no tokenizer, because it cannot be saved: NotImplementedError: no vocabulary file"
    ]
