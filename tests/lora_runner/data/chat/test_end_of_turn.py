"""Every turn ends with its stop token; records without one are counted."""

from __future__ import annotations

from typing import Any

import pytest

from lora_runner.data import Example
from lora_runner.data.user_notices import rendering_notices
from tests.lora_runner.data.chat.conversations import (
    CHATML,
    HEADINGS,
    MARKED,
    MARKERS,
    THOUGHTS,
    TWO,
    chat,
    run,
)


@pytest.mark.parametrize(
    ("template", "stop", "ways"),
    [
        # Its end of turn is no token of this tokenizer, so eos follows.
        (CHATML.replace("<|im_", "<|of_"), "</s>", {"per turn": (1, 2)}),
        (CHATML, "<|im_end|>", {"whole": (1, 1)}),
        (MARKERS, "<|im_start|>", {"whole": (1, 1)}),
        (HEADINGS, "</s>", {"per turn": (1, 2)}),
        (MARKED, "</s>", {"marked": (1, 1)}),
    ],
)
def test_every_turn_trains_its_stop_token(
    make_tokenizer: Any, template: str, stop: str, ways: dict[str, tuple[int, int]]
) -> None:
    tokenizer = make_tokenizer()
    found = run(tokenizer, TWO, template=template)
    (token,) = found.rendering.stop_tokens
    assert (token.text, token.id) == (stop, tokenizer.convert_tokens_to_ids(stop))
    assert token.num_turns == 2
    assert sum(list(example.labels).count(token.id) for example in found.examples) == 2
    assert found.rendering.num_without_stop == 0
    assert found.rendering.ways == ways


def test_records_without_a_stop_token_are_counted(make_tokenizer: Any) -> None:
    bare = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
    found = run(make_tokenizer(), TWO, TWO, template=bare).rendering
    assert (found.num_records, found.num_without_stop, found.stop_tokens) == (2, 2, ())
    short = chat(("user", "x"), ("assistant", "A"))
    long = chat(("user", "x"), ("assistant", "hello you " * 30))
    cut = run(make_tokenizer(), short, long, template=CHATML, max_length=40).rendering
    assert (cut.num_records, cut.num_without_stop) == (2, 1)
    # A template of text alone, and a tokenizer that has nothing to end a text with.
    without = run(make_tokenizer(eos=False), TWO, template=HEADINGS).rendering
    assert (without.num_without_stop, without.stop_tokens) == (1, ())
    plain = run(make_tokenizer(), Example(prompt="a", completion="b"), Example(text="c")).rendering
    assert plain.ways == {"completion": (1, 1), "text": (1, 1)}
    assert [(token.text, token.num_turns) for token in plain.stop_tokens] == [("</s>", 2)]


def test_a_second_thought_and_a_missing_stop_token_are_reported(make_tokenizer: Any) -> None:
    thought = chat(("user", "x"), ("assistant", "<think>\nwhy\n</think>\nno"))
    (note,) = rendering_notices(run(make_tokenizer(), thought, template=THOUGHTS).rendering, "training")
    assert note.text.startswith("training: the chat template prints a thought of its own before the <think>")
    assert not note.is_warning
    bare = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
    (warning,) = rendering_notices(run(make_tokenizer(), TWO, template=bare).rendering, "training")
    assert warning.text.startswith("training: 1 of 1 records teach no stop token")
    assert warning.is_warning
    # What is cut off is told as that: the record teaches to stop where max_length allows.
    cut = run(make_tokenizer(), TWO, template=CHATML, max_length=12).rendering
    assert (cut.num_without_stop, cut.num_cut_before_stop, list(rendering_notices(cut, "training"))) == (
        1,
        1,
        [],
    )
    assert list(cut.sentences()) == ["1 conversation, one sequence each, with loss on the assistant's turns"]
