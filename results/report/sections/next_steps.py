"""What to try next: ranges to widen, dimensions to fix, configs to run again."""

from __future__ import annotations

import math

from files_and_text.numbers import number, plural
from results.report.blocks import Block, Bullets, Code, Paragraph, Section
from results.report.facts import ReportFacts
from results.verdict.band import Edge

_MANY_DIVERGED = 0.2
"""From this share of diverged trials on, a lower range is advised."""
_WIDER = 4.0
"""Factor by which an end of a range on a log scale is moved out."""


def next_steps_section(facts: ReportFacts) -> Section:
    """Advice with the observation that it follows from."""
    items = [*_unfinished(facts), *_edges(facts), *_troubles(facts), *_negligible(facts), *_run_again(facts)]
    blocks: list[Block] = [Bullets(items=items)] if items else []
    if not items:
        blocks.append(Paragraph(text="Nothing stands out: no best value lies at the end of its range."))
    edges = [] if facts.verdict is None else list(facts.verdict.edges)
    if edges:
        blocks.append(
            Code(label="Wider ranges for the sweep file, under a new name", text=_wider_space(facts, edges))
        )
    return Section(id="next", title="What to try next", blocks=blocks)


def _unfinished(facts: ReportFacts) -> list[str]:
    if not facts.is_unfinished:
        return []
    return [f"Let the sweep finish: `sweeps run {facts.run_folder}` goes on where it stopped."]


def _edges(facts: ReportFacts) -> list[str]:
    edges = [] if facts.verdict is None else facts.verdict.edges
    return [
        f"Widen {edge.dimension}: the best, {number(edge.value)}, lies at the {edge.side} end of what was "
        f"searched ({number(edge.end)}), so a better value may lie beyond."
        for edge in edges
    ]


def _troubles(facts: ReportFacts) -> list[str]:
    found, counts, ended = [], facts.outcomes, max(facts.num_ended, 1)
    if counts["diverged"] > _MANY_DIVERGED * ended:
        found.append(
            f"{plural(counts['diverged'], 'trial')} of {ended} diverged: lower the high end of "
            "learning_rate, so that fewer trials are spent beyond the cliff."
        )
    if counts["out_of_memory"]:
        found.append(
            f"{plural(counts['out_of_memory'], 'trial')} ran out of memory: fewer `seats`, or a smaller "
            "per_device_train_batch_size with more gradient_accumulation_steps."
        )
    if counts["failed"]:
        found.append(
            f"{plural(counts['failed'], 'trial')} failed for a reason outside of training: fix it (the "
            "reasons are above) and run them again."
        )
    return found


def _negligible(facts: ReportFacts) -> list[str]:
    found = facts.importance
    return [
        f"Fix {name}: it hardly mattered ({100 * found.shares[name]:.1f}% of the importance over "
        f"{plural(found.num_trials, 'finished trial')}), and one dimension less leaves more trials for the "
        "others."
        for name in found.negligible
    ]


def _run_again(facts: ReportFacts) -> list[str]:
    """Without replicates, how much of a gain is luck is unknown."""
    verdict = facts.verdict
    if verdict is None or verdict.best is None or verdict.replicates is not None:
        return []
    default = verdict.guideline_default
    beside = (
        " and the guideline default" if default is not None and default.number != verdict.best.number else ""
    )
    return [
        f"Run the best config{beside} again on other seeds (sweeps confirm): one run per config cannot tell "
        "a gain from luck."
    ]


def _wider_space(facts: ReportFacts, edges: list[Edge]) -> str:
    lines = ["space:"]
    for name in dict.fromkeys(edge.dimension for edge in edges):
        dimension = facts.sweep.dimensions[name]
        low, high = dimension.low or 0.0, dimension.high or 0.0
        for edge in edges:
            if edge.dimension == name and edge.side == "low":
                low = low / _WIDER if dimension.log else max(low - (high - low) / 2, 0.0)
            elif edge.dimension == name:
                high = high * _WIDER if dimension.log else high + (high - low) / 2
        if dimension.kind == "int":
            low, high = math.floor(low), math.ceil(high)
        log = ", log: true" if dimension.log else ""
        lines.append(f"  {name}: {{low: {_yaml(low)}, high: {_yaml(high)}{log}}}")
    return "\n".join(lines)


def _yaml(value: float) -> str:
    """A number that YAML 1.1 also reads as a number: 1.0e-04, not 1e-4."""
    if isinstance(value, int) or value == 0 or 0.01 <= abs(value) < 100_000:
        return f"{value:.6g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0')}{'0' if mantissa.rstrip('0').endswith('.') else ''}e{exponent}"
