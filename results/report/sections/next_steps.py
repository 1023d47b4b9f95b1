"""What to do next: commands to copy, ranges to widen, hyperparameters to leave alone."""

from __future__ import annotations

import math

from files_and_text.numbers import number, plural
from results.report.blocks import Block, Bullets, Code, Command, Commands, Fold, Section
from results.report.facts import ReportFacts
from results.text.answer import next_text
from results.verdict.band import Edge

_MANY_DIVERGED = 0.2
"""From this share of diverged trials on, a lower range is advised."""
_WIDER = 4.0
"""Factor by which an end of a range on a log scale is moved out."""


def next_steps_section(facts: ReportFacts) -> Section | None:
    """None where there is nothing to do but to look."""
    commands = [Command(text=found.command, why=next_text(found)) for found in facts.answer.next]
    items = [*_edges(facts), *_troubles(facts), *_negligible(facts)]
    blocks: list[Block] = [Commands(commands=commands)] if commands else []
    if items:
        blocks.append(Bullets(items=items))
    edges = [] if facts.verdict is None else list(facts.verdict.edges)
    if edges:
        code = Code(label="For a sweep file with another name", text=_wider_space(facts, edges))
        blocks.append(Fold(summary="The wider ranges, to copy", blocks=[code]))
    return Section(id="next", title="Next", blocks=blocks) if blocks else None


def _edges(facts: ReportFacts) -> list[str]:
    edges = [] if facts.verdict is None else facts.verdict.edges
    return [
        f"Widen {edge.dimension}: the best, {number(edge.value)}, lies at the {edge.side} end of what was "
        f"searched ({number(edge.end)})."
        for edge in edges
    ]


def _troubles(facts: ReportFacts) -> list[str]:
    found, counts = [], facts.answer.run.outcomes
    ended = max(sum(n for name, n in counts.items() if name not in ("running", "waiting")), 1)
    diverged, memory, failed = (counts.get(name, 0) for name in ("diverged", "out_of_memory", "failed"))
    if diverged > _MANY_DIVERGED * ended:
        found.append(f"Lower the high end of learning_rate: {plural(diverged, 'trial')} of {ended} diverged.")
    if memory:
        found.append(
            f"{plural(memory, 'trial')} ran out of memory: fewer `seats`, or a smaller "
            "per_device_train_batch_size with more gradient_accumulation_steps."
        )
    if failed:
        found.append(f"{plural(failed, 'trial')} failed: mend the reason below, then run the sweep again.")
    return found


def _negligible(facts: ReportFacts) -> list[str]:
    found = facts.importance
    return [
        f"Fix {name}: it hardly mattered ({100 * found.shares[name]:.1f}% of the importance over "
        f"{plural(found.num_trials, 'finished trial')})."
        for name in found.negligible
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
