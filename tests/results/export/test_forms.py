"""Every form of records through every export: the trials' own tokens, or said to be lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_runner.data.records.export_forms import FORMS as RUNNERS_FORMS
from results.export.facts import FORMS
from results.export.unsupported_forms import AXOLOTL, LLAMA_FACTORY
from tests.results.export.data_forms import (
    DATA_FORMS,
    PLAIN,
    SETTINGS,
    Form,
    by_settings,
    load,
    outcomes,
    page,
    user,
)

PAGE = Path(__file__).parents[3] / "docs" / "exports.md"


def test_every_form_is_trained_by_the_scripts_as_by_the_trials() -> None:
    found = {form.name: (trained, scripts) for form, trained, scripts, _ in outcomes()}
    assert len(found) == len(DATA_FORMS)
    wrong = {name: scripts for name, (_, scripts) in found.items() if scripts != ["equal"] * 3}
    assert wrong == {}
    # What the forms are there for happens in them.
    assert found["earlier turns printed differently"][0] == "per turn"
    assert found["{% generation %} marks"][0] == "marked"


def test_the_page_says_what_is_computed() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_forms_that_the_runner_finds_are_those_that_exports_know() -> None:
    assert tuple(FORMS) == RUNNERS_FORMS
    assert set(AXOLOTL) | set(LLAMA_FACTORY) <= set(FORMS)


FOUND = {
    "messages": (),
    "content in parts": ("parts",),
    "tools as JSON text": ("json_text", "tools"),
    "tool calls and answers": ("tools", "tool_turns"),
    "reasoning in a field": ("reasoning",),
    "date in the template": ("dated",),
    "earlier turns printed differently": ("per_turn",),
    "turns that end by another token than eos": ("other_stop",),
    "begins with the assistant": ("assistant_first",),
    "weight 0": ("weight_0",),
    "messages as JSON text": ("json_text",),
    "messages under conversations": ("turns_key",),
    "alpaca, history as JSON text": ("json_text", "history"),
    "prompt as text, completion as messages": ("messages",),
    "empty tool_calls lists": ("empty_fields",),
    "null fields": (),
    "records that the evaluation set holds": ("copies_in_eval",),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_form_is_recorded_by_its_name(tmp_path: Path, name: str) -> None:
    (form,) = (form for form in DATA_FORMS if form.name == name)
    assert load(form, tmp_path)[1].forms == FOUND[name]


def test_roles_by_other_names_are_recorded(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "chatgpt", "value": "b"}]
    form = Form("", PLAIN, lambda n: {"conversations": [turns[0] | {"value": str(n)}, turns[1]]})
    assert load(form, tmp_path)[1].forms == ("roles",)


@pytest.mark.parametrize("target", SETTINGS)
def test_a_form_that_a_program_cannot_train_is_lost(tmp_path: Path, target: str) -> None:
    plain = Form("", PLAIN, lambda n: {"messages": [user(str(n)), {"role": "assistant", "content": "b"}]})
    parts = Form("", PLAIN, lambda n: {"messages": [user([{"type": "text", "text": str(n)}]),
                                                    {"role": "assistant", "content": "b"}]})  # fmt: skip
    before = by_settings(target, *load(plain, tmp_path))
    (said,) = set(by_settings(target, *load(parts, tmp_path))) - set(before)
    assert "parts" in said
