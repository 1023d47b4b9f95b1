"""An answer as builtins for verdict.json, with its sentences."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from files_and_text.plain_values import plain
from results.answer.answer import Answer, ParameterAnswer
from results.text.answer import (
    done_text,
    headline,
    next_text,
    parameter_sentence,
    parameter_title,
    sure_text,
    table_lines,
    use_text,
)


def answer_data(answer: Answer) -> dict[str, Any]:
    """Every field of the answer, builtins only, and beside them what a person reads."""
    data: dict[str, Any] = plain(
        asdict(answer)
        | {
            "text": {
                "headline": headline(answer),
                "use": use_text(answer),
                "sure": sure_text(answer),
                "done": done_text(answer.run),
            },
            "parameters": [_parameter(parameter, answer) for parameter in answer.parameters],
            "next": [asdict(command) | {"text": next_text(command)} for command in answer.next],
        }
    )
    if answer.merged is None:
        del data["merged"]  # most sweeps' best is never merged
    return data


def _parameter(parameter: ParameterAnswer, answer: Answer) -> dict[str, Any]:
    lines = table_lines(parameter, answer)
    return asdict(parameter) | {
        "title": parameter_title(parameter.parameter),
        "text": parameter_sentence(parameter, answer),
        "tables": [
            asdict(table) | {"text_cells": asdict(line)}
            for table, line in zip(parameter.tables, lines, strict=True)
        ],
    }
