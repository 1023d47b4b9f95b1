"""The best config, what it gains, and how sure that is."""

from __future__ import annotations

from files_and_text.numbers import loss, plural, value_text
from results.report.blocks import Block, Bullets, Paragraph, Section, Table, Tile, Tiles
from results.report.colors_and_marks import readable
from results.report.facts import ReportFacts
from results.report.sections.row_cells import comparison_effect, interval
from results.text.limitations import limitation_text
from results.text.metric import metric_sentences
from results.verdict.verdict import Verdict

_FIRST = ("learning_rate", "embedding_learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio")
"""The hyperparameters at the top of the table."""


def answer_section(facts: ReportFacts) -> Section:
    """The best config, what it gains, and how sure that is."""
    return Section(id="answer", title="The answer", blocks=[*_state(facts), *_best(facts)])


def _state(facts: ReportFacts) -> list[Block]:
    """A warning while the sweep is not finished."""
    if not facts.is_unfinished:
        return []
    counts = facts.outcomes
    ended = f"{facts.num_ended} of {plural(facts.target, 'trial')}" if facts.target else None
    parts = [f"{ended or plural(facts.num_ended, 'trial')} ended"]
    parts += [f"{counts[name]} {name}" for name in ("running", "waiting") if counts[name]]
    return [
        Paragraph(
            tone="unsure",
            text=f"This sweep is not finished: {', '.join(parts)}. Everything below can still change.",
        )
    ]


def _best(facts: ReportFacts) -> list[Block]:
    verdict = facts.verdict
    if verdict is None:
        return [Paragraph(text="No trial has been tried yet, so there is nothing to say.")]
    if verdict.best is None:
        counts = ", ".join(f"{n} {readable(outcome)}" for outcome, n in sorted(facts.outcomes.items()))
        return [
            Paragraph(
                tone="unsure",
                text="There is no best config: no trial finished its full budget with a finite loss "
                f"({counts}).",
            ),
            Tiles(tiles=[_base_tile(verdict)]),
        ]
    return [
        Paragraph(text=_headline(verdict)),
        Tiles(tiles=[_best_tile(verdict, facts), _default_tile(verdict), _base_tile(verdict)]),
        *(
            []
            if verdict.by_metric is None
            else [Paragraph(text=" ".join(metric_sentences(verdict.by_metric)))]
        ),
        *_how_sure(verdict),
        _config_table(verdict),
    ]


def _headline(verdict: Verdict) -> str:
    assert verdict.best is not None
    values = verdict.best.values
    shown = [f"{name} {value_text(values[name])}" for name in _FIRST[:4] if name in values]
    return f"Use {', '.join(shown)}." if shown else f"Use the values of trial {verdict.best.number}."


def _best_tile(verdict: Verdict, facts: ReportFacts) -> Tile:
    assert verdict.best is not None
    return Tile(
        label="Best evaluation loss",
        value=loss(verdict.best.eval_loss),
        detail=f"nats per token; trial {verdict.best.number}, the lowest of "
        f"{plural(len(facts.sweep.finished), 'finished trial')}",
    )


def _default_tile(verdict: Verdict) -> Tile:
    label, default = "Against the guideline default", verdict.guideline_default
    if default is None:
        return Tile(label=label, value="not tried", detail="no trial took the tables' own values all at once")
    if default.eval_loss is None:
        return Tile(
            label=label,
            value="unknown",
            detail=f"trial {default.number} did not finish: {readable(default.outcome)}",
        )
    if verdict.best is not None and default.number == verdict.best.number:
        return Tile(label=label, value="the same", detail="the guideline default is the best trial")
    return _gain(label, verdict.gain_over_default, default.eval_loss, f"trial {default.number}, ")


def _base_tile(verdict: Verdict) -> Tile:
    label, base = "Against the untouched base", verdict.base_eval_loss
    if base is None:
        return Tile(label=label, value="unknown", detail="the base was not measured")
    return _gain(label, verdict.gain_over_base, base, "")


def _gain(label: str, gain: float | None, other: float, who: str) -> Tile:
    """`gain` in nats: positive when the best is lower."""
    if gain is None:
        return Tile(label=label, value="unknown", detail=f"{who}at {loss(other)} nats per token")
    share = f"{100 * abs(gain) / other:.1f}% " if other > 0 else ""
    side = "lower" if gain >= 0 else "higher"
    return Tile(
        label=label,
        value=f"{share}{side}",
        detail=f"{abs(gain):.4f} nats per token {side} than {who}{loss(other)}",
    )


def _how_sure(verdict: Verdict) -> list[Block]:
    """The gain on replicates, or that there are none, and the limitations."""
    comparison = verdict.default_comparison
    effect, ends = comparison_effect(comparison), interval(comparison)
    limitations = Bullets(items=[limitation_text(item) for item in verdict.limitations])
    if not effect:
        return [Paragraph(tone="unsure", text="How sure: not yet. The reasons:"), limitations]
    text = f"How sure: run again, the guideline default's loss against the best's is {effect}"
    is_gain = comparison is not None and comparison.low is not None and comparison.low > 0
    text += f", interval {ends}." if ends else "; too few pairs for an interval."
    return [Paragraph(tone="good" if is_gain else "unsure", text=text), limitations]


def _config_table(verdict: Verdict) -> Table:
    assert verdict.best is not None
    best = verdict.best.values
    default = {} if verdict.guideline_default is None else verdict.guideline_default.values
    names = sorted(best, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    return Table(
        caption="The best config beside the guideline default",
        header=("hyperparameter", "best", "guideline default"),
        rows=[
            (name, value_text(best[name]), value_text(default[name]) if name in default else "")
            for name in names
        ],
    )
