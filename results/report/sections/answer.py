"""The answer: what to use, what the alternatives cost, how sure that is, and the losses by learning rate."""

from __future__ import annotations

from files_and_text.numbers import number
from results.answer.answer import Answer, Compared, Gap, Loss
from results.report.blocks import Block, Bullets, Fold, Headline, Paragraph, Role, Section, Tile, Tiles, Tone
from results.report.facts import ReportFacts
from results.report.sections.charts import pictures
from results.text.answer import default_sentence, gap_text, headline, loss_text, sure_text
from results.text.gaps import short_loss
from results.text.limitations import limitation_text
from results.text.metric import metric_sentences

_TONES: dict[str, Tone] = {
    "default_costs": "good",
    "default_loses_runs": "good",
    "no_difference": "good",
    "default_is_best": "good",
    "default_better": "bad",
    "best_loses_runs": "bad",
}
_SHOWN = (
    "data_warning",
    "no_better_than_base",
    "no_better_than_unquantized",
    "better_arms",
    "maybe_better",
    "default_unfinished",
    "best_lost_runs",
)
"""Limitations that change what a reader does: they are not folded away."""
_SAID_ELSEWHERE = ("no_best", "one_run", "unfinished", "older_best", "edge", "rate_untried")
"""Limitations that the sentence on how sure it is, the first line or the section on what is next says."""


def answer_section(facts: ReportFacts) -> Section:
    return Section(id="answer", title="The answer", blocks=[*_unfinished(facts), *_blocks(facts)])


def _unfinished(facts: ReportFacts) -> list[Block]:
    run = facts.answer.run
    if not run.is_unfinished:
        return []
    of = f" of {run.target}" if run.target else ""
    ended = f"{run.finished}{of} {'trial' if (run.target or run.finished) == 1 else 'trials'}"
    text = f"This sweep is not finished: {ended} so far. Everything below can still change."
    return [Paragraph(tone="unsure", text=text)]


def _blocks(facts: ReportFacts) -> list[Block]:
    answer, verdict = facts.answer, facts.verdict
    if verdict is None:
        return [Headline(text="No trial has been tried yet.")]
    blocks: list[Block] = [Headline(text=headline(answer)), Tiles(tiles=_tiles(facts))]
    if answer.best is not None:
        tone = "unsure" if answer.untried else _TONES.get(answer.sure, "unsure")
        blocks.append(Paragraph(tone=tone, text=f"How sure? {sure_text(answer)}"))
    if default := default_sentence(answer):
        blocks.append(Paragraph(text=default))
    if verdict.by_metric is not None:
        blocks.append(Paragraph(text=" ".join(metric_sentences(verdict.by_metric))))
    blocks += [
        Paragraph(tone="unsure", text=limitation_text(found))
        for found in verdict.limitations
        if found.code in _SHOWN
    ]
    blocks += pictures(facts, "learning_rate")
    folded = [
        limitation_text(found)
        for found in verdict.limitations
        if found.code not in (*_SHOWN, *_SAID_ELSEWHERE)
    ]
    if folded and answer.best is not None:
        blocks.append(
            Fold(summary=f"What limits this answer ({len(folded)})", blocks=[Bullets(items=folded)])
        )
    return blocks


def _tiles(facts: ReportFacts) -> list[Tile]:
    answer = facts.answer
    if answer.is_by_metric and answer.metric is not None:
        return _metric_tiles(answer, answer.metric)
    tiles = []
    if (best := answer.best) is not None:
        value, notes = _parts(loss_text(best.loss))
        shown = ", ".join(filter(None, (notes, f"trial {best.trial}")))
        tiles.append(Tile(mark="best", label="Best loss, nats per token", value=value, detail=shown))
        tiles.append(_default_tile(answer.default, is_best=answer.default.trial == best.trial))
    if answer.base.loss is not None:
        value, _ = _parts(loss_text(answer.base.loss))
        against = _against_best(answer.base.gap)
        if unquantized := _unquantized(answer):
            against = f"{against}; {unquantized}"
        tiles.append(Tile(mark="base", label="The untouched base", value=value, detail=against))
    return [*tiles, *_merged_tile(answer)]


def _merged_tile(answer: Answer) -> list[Tile]:
    found = answer.merged
    if found is None:
        return []
    against = "nats per token" if found.gap is None else _against_best(found.gap)
    label = f"The best merged in {found.dtype}"
    detail = f"{against}; {found.folder}"
    return [Tile(mark="best", label=label, value=short_loss(found.loss), detail=detail)]


def _unquantized(answer: Answer) -> str:
    found = answer.unquantized_base
    if found is None or found.loss is None:
        return ""
    value, _ = _parts(loss_text(found.loss))
    gap = "" if found.gap is None else f", {_parts(gap_text(found.gap))[0]}"
    return f"not quantized {value}{gap}"


def _metric_tiles(answer: Answer, name: str) -> list[Tile]:
    """The metric in large type, the loss beside it."""
    best, default, base = answer.best, answer.default, answer.base
    shown: list[tuple[Role, str, float | None, Loss | None]] = []
    if best is not None:
        shown.append(("best", f"Best {name}", best.metric, best.loss))
    if best is None or default.trial != best.trial:
        shown.append(("default", "The guideline default", default.metric, default.loss))
    shown.append(("base", "The untouched base", base.metric, base.loss))
    tiles = [
        Tile(mark=mark, label=label, value=number(metric), detail=f"loss {loss_text(loss)}")
        for mark, label, metric, loss in shown
        if metric is not None and loss is not None
    ]
    return [*tiles, *_merged_tile(answer)]


def _default_tile(default: Compared, *, is_best: bool) -> Tile:
    label = "The guideline default costs"
    if is_best:
        return Tile(mark="default", label=label, value="nothing", detail="it is the best")
    if default.loss is None or default.gap is None:
        outcome = default.outcome.replace("_", " ")
        reason = f": {default.reason}" if default.reason else ""
        return Tile(mark="default", label=label, value="unknown", detail=f"{outcome}{reason}")
    value, notes = _parts(gap_text(default.gap))
    loss, _ = _parts(loss_text(default.loss))
    nats = "" if default.gap.percent is None else f"{default.gap.nats:+.3f} nats"
    detail = ", ".join(filter(None, (notes, nats, f"loss {loss}")))
    return Tile(mark="default", label=label, value=value, detail=detail)


def _against_best(gap: Gap | None) -> str:
    if gap is None:
        return "nats per token"
    value, _ = _parts(gap_text(gap))
    return f"{value} against the best" + ("" if gap.percent is None else f", {gap.nats:+.3f} nats")


def _parts(text: str) -> tuple[str, str]:
    """`5.432 (5.41 to 5.45, 3 seeds)` -> the value, and what stands in brackets."""
    value, _, notes = text.partition(" (")
    return value, notes.removesuffix(")")
