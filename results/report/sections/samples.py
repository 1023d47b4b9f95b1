"""What the untouched base, the guideline default and the best wrote, beside the reference answer."""

from __future__ import annotations

from results.answer.answer import Sample
from results.report.blocks import Block, Paragraph, Role, SampleTexts, Section
from results.report.facts import ReportFacts

_CHARACTERS, _LINES = 320, 6
"""A text is cut where it is longer, so that prompts and answers stand on one screen."""
_NOTHING = "(nothing)"


def samples_section(facts: ReportFacts) -> Section | None:
    """None where the study holds no samples."""
    found: list[Block] = [
        SampleTexts(
            prompt=_end(sample.prompt),
            texts=[(mark, who, _beginning(text)) for mark, who, text in _texts(sample) if text is not None],
        )
        for sample in facts.answer.samples
    ]
    if not found:
        return None
    note = (
        "Prompts of the evaluation set, each continued by its most likely next tokens, and only the first of "
        "those. A look at the outputs, not a measurement."
    )
    return Section(id="samples", title="What they write", blocks=[Paragraph(text=note), *found])


def _texts(sample: Sample) -> tuple[tuple[Role, str, str | None], ...]:
    return (
        ("reference", "Reference answer", sample.reference),
        ("base", "Untouched base", sample.base),
        ("default", "Guideline default", sample.default),
        ("best", "Best", sample.best),
    )


def _beginning(text: str) -> str:
    """The first characters and lines, without blank ones around them."""
    lines = text.strip().splitlines()
    shown = "\n".join(lines[:_LINES])
    is_cut = len(lines) > _LINES or len(shown) > _CHARACTERS
    return f"{shown[:_CHARACTERS].rstrip()} …" if is_cut else shown or _NOTHING


def _end(text: str) -> str:
    """The last characters and lines: a prompt ends with what is asked."""
    lines = text.strip().splitlines()
    shown = "\n".join(lines[-_LINES:])
    is_cut = len(lines) > _LINES or len(shown) > _CHARACTERS
    return f"… {shown[-_CHARACTERS:].lstrip()}" if is_cut else shown or _NOTHING
