"""Small conversations and chat templates of the kinds in use, and how tests tokenize them."""

from __future__ import annotations

from typing import Any

from lora_runner.data import Example, Message, TokenizedSet, resolve_chat_template
from lora_runner.data.records.record import Origin
from lora_runner.data.tokens.tokenize import tokenize

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# The user's turn ends with the header of the answer; the answer begins with a space.
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[Q] {{ m['content'] }} [/Q]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)

# A header, but no generation prompt.
HEADINGS = (
    "{% for m in messages %}### {{ m['role'] | capitalize }}:\n{{ m['content'] | trim }}\n\n{% endfor %}"
)

# Only the last answer has (empty) reasoning.
THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MARKED = (
    "\n{%- for m in messages %}\n"
    "    {%- if m['role'] == 'assistant' %}\n"
    "        {{- '<|im_start|>assistant\\n' }}{% generation %}{{ m['content'] }}{% endgeneration %}\n"
    "        {{- '</s>\\n' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"
)

# A turn ends with the first token of the next one, as in GLM's template.
MARKERS = (
    "{% for m in messages %}{{ '<|im_start|>' if m.role == 'user' else '<|im_end|>' }}\n{{ m.content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_end|>{% endif %}"
)


def chat(*turns: tuple[str, str], **more: Any) -> Example:
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return Example(messages=messages, origin=Origin("chat.jsonl", 7), **more)


TWO = chat(
    ("user", "hello"), ("assistant", "hello you"), ("user", "what is it"), ("assistant", "im the answer")
)


CALLS = [{"type": "function", "function": {"name": name, "arguments": {"a": 1}}} for name in ("f", "g")]


def answer(content: str = "", **extra: Any) -> Example:
    messages = (Message(role="user", content="x"), Message(role="assistant", content=content, extra=extra))
    return Example(messages=messages, origin=Origin("chat.jsonl", 7))


def run(tokenizer: Any, *examples: Example, template: str | None = None, **options: Any) -> TokenizedSet:
    options = {"max_length": 500, **options}
    found = resolve_chat_template(template, tokenizer)
    return tokenize(examples, tokenizer, source="chat.jsonl", chat_template=found, **options)
