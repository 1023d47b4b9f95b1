"""Chat templates of the shapes found in the wild: exactly the assistant's words and its end-of-turn carry
loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_runner.data import Example, Message, TokenizedSet, resolve_chat_template
from lora_runner.data.records.record import Origin
from lora_runner.data.tokens.tokenize import tokenize
from lora_runner.data.user_notices import rendering_notices
from lora_runner.errors import DataError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The header of the answer stands at the end of the user's turn, the answer's own blank before it.
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[Q] {{ m['content'] }} [/Q]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
# No generation prompt at all, though there is a header.
HEADINGS = (
    "{% for m in messages %}### {{ m['role'] | capitalize }}:\n{{ m['content'] | trim }}\n\n{% endfor %}"
)
# Only the last answer has a (here empty) thought.
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


# Nothing ends a turn but the token by which the next one begins, as in GLM's template.
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


def run(tokenizer: Any, *examples: Example, template: str | None = None, **options: Any) -> TokenizedSet:
    options = {"max_length": 500, **options}
    found = resolve_chat_template(template, tokenizer)
    return tokenize(examples, tokenizer, source="chat.jsonl", chat_template=found, **options)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, ["hello you<|im_end|>", "im the answer<|im_end|>"]),
        (BRACKETS, [" hello you</s>", " im the answer</s>"]),
        (HEADINGS, ["hello you</s>", "im the answer</s>"]),
        (
            THOUGHTS,
            ["<think>\n\n</think>\n\nhello you<|im_end|>", "<think>\n\n</think>\n\nim the answer<|im_end|>"],
        ),
        (MARKED, ["hello you</s>", "im the answer</s>"]),
        ("chatml", ["hello you<|im_end|>", "im the answer<|im_end|>"]),
    ],
    ids=["chatml", "brackets", "headings", "thoughts", "marked", "built in"],
)
def test_loss_on_every_assistant_turn(
    make_tokenizer: Any, targets: Any, template: str, expected: list[str]
) -> None:
    tokenizer = make_tokenizer()
    found = run(tokenizer, TWO, template=template).examples
    assert [turn for example in found for turn in targets(tokenizer, example)] == expected


@pytest.mark.parametrize("template", [CHATML, BRACKETS, MARKED, "\nStart " + MARKED])
def test_ids_are_those_of_the_template(make_tokenizer: Any, template: str) -> None:
    tokenizer = make_tokenizer(bos=True, chat_template=template)
    (example,) = run(tokenizer, TWO).examples
    messages = [message.as_dict() for message in TWO.messages or ()]
    assert list(example.input_ids) == tokenizer.apply_chat_template(messages, return_dict=False)


def test_every_token_has_loss_when_asked(make_tokenizer: Any) -> None:
    (example,) = run(make_tokenizer(), TWO, template=CHATML, completion_only=False).examples
    assert list(example.labels) == [-100, *list(example.input_ids)[1:]]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_context_and_weightless_turns_have_no_loss(make_tokenizer: Any, targets: Any, template: str) -> None:
    tokenizer = make_tokenizer()
    end = "<|im_end|>" if template == CHATML else "</s>"
    context = Example(messages=TWO.messages, num_context_messages=3)
    messages = TWO.messages or ()
    weightless = Example(
        messages=(*messages[:3], Message(role="assistant", content="im the answer", train=False)),
    )
    first, second = run(tokenizer, context, weightless, template=template).examples
    assert targets(tokenizer, first) == [f"im the answer{end}"]
    assert targets(tokenizer, second) == [f"hello you{end}"]


@pytest.mark.parametrize("template", [CHATML, BRACKETS, HEADINGS, MARKED])
def test_a_conversation_may_begin_with_the_assistant(
    make_tokenizer: Any, targets: Any, template: str
) -> None:
    tokenizer = make_tokenizer()
    greeting = chat(("assistant", "hello"), ("user", "hello you"), ("assistant", "Paris"))
    found = run(tokenizer, greeting, template=template).examples
    first, second = (turn for example in found for turn in targets(tokenizer, example))
    assert first.startswith("hello") or first == " hello</s>"
    assert second.strip().startswith("Paris")


@pytest.mark.parametrize(
    "content", ["", "assistant", "\n\nhello", "  hello  \n", "A", "<think>", "é€🙂", "{{ x }}"]
)
def test_awkward_contents_are_found(make_tokenizer: Any, targets: Any, content: str) -> None:
    tokenizer = make_tokenizer()
    example = chat(("user", content or "x"), ("assistant", content), ("user", "x"), ("assistant", content))
    for template in (CHATML, MARKED, "chatml"):
        (found,) = run(tokenizer, example, template=template).examples
        end = "</s>" if template == MARKED else "<|im_end|>"
        turns = targets(tokenizer, found)
        # A line break of the content that merges with that of the header belongs to the content.
        assert [turn.lstrip("\n") for turn in turns] == [content.lstrip("\n") + end] * 2


def test_the_header_is_no_answer_even_where_it_holds_its_words(make_tokenizer: Any, targets: Any) -> None:
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, chat(("user", "x"), ("assistant", "Assistant")), template=HEADINGS).examples
    assert targets(tokenizer, example) == ["Assistant</s>"]


def prompt_of(tokenizer: Any, template: str, turns: int) -> list[int]:
    """What transformers gives a server for the first turns of TWO."""
    messages = [message.as_dict() for message in (TWO.messages or ())[:turns]]
    found: list[int] = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    return found


# The system text stands in the last question, as in some of Mistral's.
LAST = (
    "{% for m in messages %}{% if m.role == 'user' %}"
    "[Q] {{ 'Be brief. ' if loop.index > messages | length - 2 }}{{ m.content }} [/Q]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
# Another blank before the header of the prompt than before that of an answer.
BLANKS = (
    "{% for m in messages %}{{ ' ' if not loop.first }}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}{{ '  assistant: ' }}{% endif %}"
)


@pytest.mark.parametrize("template", [THOUGHTS, "{{ messages | length }} turns\n" + CHATML, LAST, BLANKS])
def test_a_template_that_prints_earlier_turns_otherwise_makes_an_example_per_turn(
    make_tokenizer: Any, template: str
) -> None:
    tokenizer = make_tokenizer(bos=True)
    found = run(tokenizer, TWO, template=template)
    assert found.rendering.ways == {"per turn": (1, 2)}
    for example, turns in zip(found.examples, (1, 3), strict=True):
        prompt = prompt_of(tokenizer, template, turns)
        ids, labels = list(example.input_ids), list(example.labels)
        assert ids[: len(prompt)] == prompt, "an example begins with what a server sends"
        trained = len(ids) - labels.count(-100)
        assert labels[-trained:] == ids[-trained:]
        assert len(ids) - trained == len(prompt)


def test_loss_begins_where_the_answer_parts_from_a_servers_prompt(make_tokenizer: Any, targets: Any) -> None:
    tokenizer = make_tokenizer()
    swallows = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    found = run(tokenizer, TWO, chat(("user", "x"), ("assistant", "<thing>")), template=swallows)
    turns = [turn for example in found.examples for turn in targets(tokenizer, example)]
    assert turns == ["hello you<|im_end|>", "im the answer<|im_end|>", "<thing><|im_end|>"]
    (note,) = found.rendering.notes
    assert note == (
        "a server's prompt goes on with '<think>\\n' where the chat template prints the answer without it:"
        " the loss begins where the two part (2 of 2 records)"
    )
    # Where the template prints the thought that the prompt opens, the answer follows the prompt.
    thought = chat(("user", "x"), ("assistant", "<think>\nyes\n</think>\nno"))
    found = run(tokenizer, thought, template=swallows)
    assert [targets(tokenizer, example) for example in found.examples] == [["yes\n</think>\nno<|im_end|>"]]
    assert found.rendering.notes == ()


def test_an_answer_that_cannot_be_told_from_its_prompt_is_refused(make_tokenizer: Any) -> None:
    reversed_ = "{% for m in messages[::-1] %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    with pytest.raises(DataError, match=r"turn 2: .* cannot be told from its prompt") as caught:
        run(make_tokenizer(), TWO, template=reversed_)
    assert (caught.value.path, caught.value.line) == ("chat.jsonl", 7)
    assert "{% generation %}" in str(caught.value)


def test_what_the_template_refuses_names_the_line(make_tokenizer: Any) -> None:
    with pytest.raises(
        DataError, match=r"chat\.jsonl:7: the chat template refuses .*only user and assistant"
    ):
        run(make_tokenizer(), chat(("system", "s"), ("assistant", "a")), template=BRACKETS)


def test_a_broken_template_names_its_line(make_tokenizer: Any) -> None:
    for broken in ("{% for m in messages %}\n{{ m }", "{% generation %}"):
        with pytest.raises(DataError, match="the chat template is broken at its line"):
            run(make_tokenizer(), TWO, template=broken)


def test_tools_need_a_template_that_prints_them(make_tokenizer: Any, targets: Any) -> None:
    with_tools = Example(messages=TWO.messages, tools=({"name": "find"},))
    for template in (CHATML, "{# no tools #}" + CHATML):
        with pytest.raises(DataError, match="the record has tools, which the chat template does not print"):
            run(make_tokenizer(), with_tools, template=template)
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, with_tools, template="{{ tools[0].name }}\n" + CHATML).examples
    assert tokenizer.decode(example.input_ids).startswith("find\n")
    assert targets(tokenizer, example) == ["hello you<|im_end|>", "im the answer<|im_end|>"]


@pytest.mark.parametrize("rest", [CHATML, MARKED])
def test_todays_date_does_not_reach_the_data(make_tokenizer: Any, rest: str) -> None:
    tokenizer = make_tokenizer()
    template = "{% if strftime_now is defined %}Today is {{ strftime_now('%d %b %Y') }}.\n{% endif %}" + rest
    (example,) = run(tokenizer, TWO, template=template).examples
    assert tokenizer.decode(example.input_ids).startswith("Today is 26 Jul 2024.\n")


def test_where_a_template_comes_from(make_tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(BRACKETS)
    tokenizer = make_tokenizer(chat_template=CHATML)
    assert resolve_chat_template(None, tokenizer) == CHATML
    assert resolve_chat_template(str(path), tokenizer) == BRACKETS
    assert resolve_chat_template(HEADINGS, tokenizer) == HEADINGS
    assert resolve_chat_template(None, make_tokenizer()) is None
    tokenizer.chat_template = {"default": BRACKETS, "tool_use": CHATML}
    assert resolve_chat_template(None, tokenizer) == BRACKETS
    with pytest.raises(DataError, match="there is no file 'chatlm'"):
        resolve_chat_template("chatlm", tokenizer)


def test_no_template_says_what_to_set(make_tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"chat\.jsonl:7: .*set chat_template to jinja text.* chatml"):
        run(make_tokenizer(), TWO)


@pytest.mark.parametrize("bos", [False, True])
def test_the_built_in_template_begins_as_the_tokenizer_does(make_tokenizer: Any, bos: bool) -> None:
    tokenizer = make_tokenizer(bos=bos)
    (example,) = run(tokenizer, TWO, template="chatml").examples
    assert (example.input_ids[0] == tokenizer.bos_token_id) is bos
    assert list(example.input_ids).count(tokenizer.bos_token_id) == bos


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
def test_every_turn_teaches_its_stop_token(
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


def test_records_that_teach_no_stop_are_counted(make_tokenizer: Any) -> None:
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


def test_all_tokens_of_a_conversation_are_one_sequence_when_asked(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    for template in (THOUGHTS, HEADINGS, MARKED):
        found = run(tokenizer, TWO, template=template, completion_only=False)
        (example,) = found.examples
        assert list(example.labels) == [-100, *list(example.input_ids)[1:]]
        assert found.rendering.num_without_stop == 0


def test_every_answer_is_looked_at_where_all_tokens_have_loss(make_tokenizer: Any) -> None:
    def every(example: Example, template: str) -> TokenizedSet:
        return run(make_tokenizer(), example, template=template, completion_only=False)

    # The last answer's stop token has loss although a question stands behind it.
    asked = chat(("user", "hello"), ("assistant", "hi"), ("user", "and you"))
    assert [token.text for token in every(asked, CHATML).rendering.stop_tokens] == ["<|im_end|>"]
    assert [token.text for token in every(asked, MARKERS).rendering.stop_tokens] == ["<|im_start|>"]
    assert every(asked, HEADINGS).rendering.num_without_stop == 1
    thought = Message(role="assistant", content="hi", extra={"reasoning_content": "so"})
    longer = Example(
        messages=(Message(role="user", content="x"), thought, *asked.messages), origin=Origin("chat.jsonl", 7)
    )
    with pytest.raises(DataError, match=r"chat\.jsonl:7: turn 2: .* does not print its 'reasoning_content'"):
        every(longer, CHATML)
    last_alone = CHATML.replace("{{ m['content'] }}", "{{ m.reasoning_content if loop.last }}{{ m.content }}")
    (note,) = every(longer, last_alone).rendering.notes
    assert note.startswith("the chat template prints an earlier turn otherwise than it does when")
    assert every(TWO, CHATML).rendering.notes == ()


def test_contents_are_parts_where_a_template_reads_nothing_else(make_tokenizer: Any, targets: Any) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
        "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, TWO, template=template).examples
    assert targets(tokenizer, example) == ["hello you<|im_end|>", "im the answer<|im_end|>"]


CALLS = [{"type": "function", "function": {"name": name, "arguments": {"a": 1}}} for name in ("f", "g")]


def answer(content: str = "", **extra: Any) -> Example:
    messages = (Message(role="user", content="x"), Message(role="assistant", content=content, extra=extra))
    return Example(messages=messages, origin=Origin("chat.jsonl", 7))


@pytest.mark.parametrize(
    ("example", "template", "message"),
    [
        (answer(tool_calls=CALLS), CHATML, "turn 2: .* does not print its 'tool_calls'.* into the content"),
        (answer(tool_calls=CALLS), MARKED, "turn 2: .* does not print its 'tool_calls'"),
        (answer("x", function_call=CALLS[0]), CHATML, "its 'function_call'.* write it as tool_calls"),
        (answer("x", reasoning_content="so"), CHATML, "its 'reasoning_content'.* take it out"),
        (answer("x", thinking="so"), "{{ reasoning }}" + CHATML, "its 'thinking'.* name it 'reasoning'"),
        (
            answer(tool_calls=CALLS),
            CHATML.replace(
                "{{ m['content'] }}", "{{ m['content'] }}{{ m.tool_calls and m.tool_calls[0].function.name }}"
            ),
            "does not print item 2 of its 'tool_calls'",
        ),
        (
            answer("<think>why</think>no"),
            CHATML.replace("m['content']", "m['content'].split('</think>')[-1]"),
            "what stands before </think> in its content",
        ),
        (
            answer("hm <think>why</think>no"),
            CHATML.replace("m['content']", "m['content'].split('<think>')[-1]"),
            "what stands before <think> in its content",
        ),
        (
            answer("lost"),
            CHATML.replace("m['content']", "m['content'] if m.role == 'user' else 'ok'"),
            "does not print its content",
        ),
    ],
)
def test_what_a_template_leaves_out_of_an_answer_is_an_error(
    make_tokenizer: Any, example: Example, template: str, message: str
) -> None:
    with pytest.raises(DataError, match=r"chat\.jsonl:7: .*" + message):
        run(make_tokenizer(), example, template=template)


def test_what_need_not_be_printed_is_no_error(make_tokenizer: Any) -> None:
    reads = CHATML.replace("{{ m['content'] }}", "{{ m.reasoning or '' }}{{ m.content | upper }}")
    tokenizer = make_tokenizer()
    # Two names for one thought; ids and names; a field of a turn without loss; a content that is changed.
    assert (
        len(run(tokenizer, answer("x", reasoning="so", reasoning_content="so", id="5"), template=reads)) == 1
    )
    context = Example(
        messages=(
            Message(role="assistant", content="a", train=False, extra={"thinking": "so"}),
            Message(role="user", content="x", extra={"thinking": "so"}),
            Message(role="assistant", content="b"),
        )
    )
    assert len(run(tokenizer, context, template=CHATML)) == 1


@pytest.mark.parametrize("completion_only", [True, False])
@pytest.mark.parametrize("template", [CHATML, THOUGHTS, MARKED])
def test_a_turn_before_an_answer_that_is_not_printed_is_said(
    make_tokenizer: Any, template: str, completion_only: bool
) -> None:
    turns = (("developer", "be short"), ("user", "hello"), ("assistant", "hi"), ("tool", "after it all"))
    example, tokenizer = chat(*turns), make_tokenizer()

    def notes(text: str) -> list[str]:
        found = run(tokenizer, example, template=text, completion_only=completion_only).rendering.notes
        return [note for note in found if note.startswith("the chat template leaves out a turn of the role ")]

    assert notes(template) == notes(template.replace("m['content']", "m['content'] | upper")) == []
    (note,) = notes(template.replace(" in messages ", " in messages if m['role'] != 'developer' "))
    assert "'developer'" in note
    assert note.endswith("(1 of 1 records)")
    # What stands behind the last answer is no part of any prompt, but of a text of which all is trained.
    cut = notes(template.replace(" in messages ", " in messages if m['role'] != 'tool' "))
    assert len(cut) == (0 if completion_only else 1)


def test_marks_of_several_pieces_are_told_to_their_turns(make_tokenizer: Any, targets: Any) -> None:
    pieces = MARKED.replace(
        "{% generation %}", "{% generation %}[{% endgeneration %}{{ 'A' }}{% generation %}"
    )
    tokenizer = make_tokenizer()
    context = Example(messages=TWO.messages, num_context_messages=3)
    (example,) = run(tokenizer, context, template=pieces).examples
    assert targets(tokenizer, example) == ["[", "im the answer</s>"]


def test_arguments_are_text_where_a_template_joins_them_to_text(make_tokenizer: Any, targets: Any) -> None:
    joins = CHATML.replace(
        "{{ m['content'] }}",
        "{{ m.content }}{% for c in m.tool_calls %}{{ 'C' + c.function.arguments }}{% endfor %}",
    )
    tokenizer = make_tokenizer()
    (example,) = run(tokenizer, answer(tool_calls=CALLS[:1]), template=joins).examples
    assert targets(tokenizer, example) == ['C{"a": 1}<|im_end|>']


def test_a_second_thought_and_a_missing_stop_are_said(make_tokenizer: Any) -> None:
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


@settings(max_examples=60, deadline=None)
@given(
    contents=st.lists(st.text("hel o\n.<|", min_size=1, max_size=8), min_size=4, max_size=4),
    space=st.sampled_from(["", "\n", " "]),
)
def test_marks_train_transformers_own_mask_whatever_merges(
    make_tokenizer: Any, contents: list[str], space: str
) -> None:
    # Transformers' mask ends with the first token of the last character, and makes something of empty marks;
    # ours holds all bytes of that character, and nothing of those.
    template = MARKED.replace("assistant\\n", f"assistant{space}").replace("'</s>\\n'", f"'{space}you'")
    tokenizer = make_tokenizer(bos=True)
    example = chat(*zip(("user", "assistant") * 2, contents, strict=True))
    expected = tokenizer.apply_chat_template(
        [message.as_dict() for message in example.messages or ()],
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    for found in run(tokenizer, example, template=template).examples:
        assert list(found.input_ids) == expected["input_ids"]
        assert [label != -100 for label in found.labels] == [bool(bit) for bit in expected["assistant_masks"]]
