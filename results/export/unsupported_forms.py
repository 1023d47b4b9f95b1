"""Forms of records that Axolotl and LLaMA-Factory read differently than the trials did, with what is lost.

Read from axolotl 0.21.0 (prompt_strategies/chat_template.py) and llamafactory 0.9.5 (data/converter.py,
data/template.py, data/processor/supervised.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from results.export.config_values import Config, section
from results.export.facts import FORMS, form_fact_name
from results.export.target import FactExport, not_expressed, written_in

AXOLOTL: Mapping[str, str] = {
    "json_text": "Axolotl reads no turns, tools or history that are written as JSON text; the sweep did.",
    "parts": "Axolotl hands content in parts to the chat template as a list; the sweep joined its texts.",
    "tool_turns": "Axolotl finds a turn by putting another content in its place; whether that finds the "
    "tokens of tool calls as the sweep did was not compared.",
    "reasoning": "Axolotl finds a turn by putting another content in its place; whether that finds the "
    "tokens of reasoning as the sweep did was not compared.",
    "messages": "Axolotl reads prompts and completions as text; in the sweep they were turns.",
    "history": "Axolotl's alpaca records have no history.",
    "empty_fields": "Axolotl shows empty lists in a turn to the chat template; the sweep left them out.",
    "turns_key": "Axolotl looks for the turns under the usual key; the sweep's records have another.",
    "roles": "Axolotl takes roles by other names than human and gpt as they are; the sweep translated them.",
    "marked": "Axolotl does not read {% generation %}, by which the sweep knew what carries loss.",
    "per_turn": "The sweep made one example per assistant's turn, since the template prints earlier turns "
    "differently once later ones exist; Axolotl makes one of the whole conversation.",
    "dated": "The chat template prints today's date; the sweep fixed it.",
    "other_stop": "Turns end by another token than the tokenizer's end token; Axolotl trains the latter.",
    "copies_in_eval": "The sweep left out training records that the evaluation set holds; Axolotl trains on "
    "them.",
}
"""Form -> what is lost; the other forms are read as in the sweep."""

LLAMA_FACTORY: Mapping[str, str] = {
    "json_text": "LLaMA-Factory reads no turns, tools or history written as JSON text; the sweep did.",
    "parts": "LLaMA-Factory takes content as text; the sweep joined the texts of its parts.",
    "tools": "LLaMA-Factory writes tools in a form of its own, and here leaves them out.",
    "tool_turns": "LLaMA-Factory writes calls of tools in a form of its own, and skips roles that it does "
    "not know.",
    "reasoning": "LLaMA-Factory reads role and content of a turn alone, and no reasoning beside it.",
    "weight_0": "LLaMA-Factory gives loss to turns of weight 0.",
    "assistant_first": "LLaMA-Factory skips conversations that begin with the assistant.",
    "messages": "LLaMA-Factory reads prompts and completions as text; in the sweep they were turns.",
    "history": "LLaMA-Factory gives loss to the answers of the history.",
    "input": "LLaMA-Factory puts one line break between instruction and input, the sweep a blank line.",
    "turns_key": "LLaMA-Factory looks for the turns under the usual key; the sweep's records have another.",
    "roles": "LLaMA-Factory skips conversations with other roles than human, gpt, user and assistant.",
    "marked": "LLaMA-Factory does not read {% generation %}, by which the sweep knew what carries loss.",
    "per_turn": "The sweep made one example per assistant's turn, since the template prints earlier turns "
    "differently once later ones exist; LLaMA-Factory prints all turns alike.",
    "dated": "The chat template prints today's date; the sweep fixed it.",
    "copies_in_eval": "The sweep left out training records that the evaluation set holds; LLaMA-Factory "
    "trains on them.",
}
"""The same for LLaMA-Factory."""


def form_facts(sentences: Mapping[str, str], location: str) -> dict[str, FactExport]:
    """For every form: what is lost, or `location`, where the settings file has it read as in the sweep."""
    return {
        form_fact_name(form): not_expressed(sentences[form]) if form in sentences else written_in(location)
        for form in FORMS
    }


def unknown_forms_notes(config: Config) -> list[str]:
    """A note when the study, of an earlier version, does not record the forms of its records."""
    if section(config, "data").get("forms") is not None:
        return []
    return [
        "The study does not say which forms its records have (tools, parts, weights, templates that print "
        "earlier turns differently ...): compare some tokens before training."
    ]
