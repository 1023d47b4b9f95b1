"""What the tables say about a hyperparameter and what their values cost, in words."""

from __future__ import annotations

from dataclasses import dataclass

from files_and_text.numbers import number, number_range, plural, share_text, value_text, warmup_text
from files_and_text.plain_values import finite
from results.answer.answer import Answer, Gap, ParameterAnswer, TableValue
from results.text.comparisons import WITH_ALL
from results.text.gaps import cost_words, gap_text, percent_text
from results.text.values import about, conjunction

_TITLES = {
    "learning_rate": "Learning rate",
    "embedding_learning_rate": "Embedding rate",
    "embedding_lr_ratio": "Embedding rate / learning rate",
    "warmup_ratio": "Warmup, share of the steps",
    "warmup_steps": "Warmup, steps",
    "lr_scheduler_type": "Scheduler",
    "lora_r": "Rank",
    "lora_alpha": "Alpha",
    "lora_dropout": "Dropout",
    "weight_decay": "Weight decay",
    "per_device_train_batch_size": "Batch size",
    "gradient_accumulation_steps": "Gradient accumulation",
    "max_steps": "Steps",
}


_NO_VALUE = "a rate of their own"
"""What rows about embeddings ask for that name no value."""


@dataclass(frozen=True, kw_only=True)
class TableLine:
    """One value that the tables give, as short cells."""

    value: str
    """`2e-4`, `0.03 to 0.1`, `1e-3 too high`."""
    rows: str
    """`6 rows`."""
    position: str
    """What the best is against it: `21 times higher`, `inside`, `the same`, `another`."""
    cost: str
    """`+8.8% (trial 4)`, `+8.8% (8.0 to 9.6%)` on new seeds, `+8.8% (5.1 to 12.9%, model)`; `not measured`,
    `not measured alone`; `nothing` where the best holds it."""
    word: str
    """`undecided`, `too low`."""


def parameter_title(name: str) -> str:
    """`Learning rate` for learning_rate; other names with spaces and a capital letter."""
    return _TITLES.get(name) or name.replace("_", " ").capitalize()


def best_text(parameter: ParameterAnswer, answer: Answer) -> str:
    """`4.24e-3`, `6 steps (15%)`, or why the best does not use it: `none beside constant`."""
    if parameter.unused_beside:
        return f"none beside {parameter.unused_beside}"
    return "unknown" if parameter.best is None else _best_value(parameter, answer)


def _best_value(parameter: ParameterAnswer, answer: Answer) -> str:
    value = parameter.best
    if parameter.parameter != "warmup_ratio" or not isinstance(value, int | float):
        return value_text(value)
    steps = None if answer.best is None else finite(answer.best.values.get("warmup_steps"))
    return share_text(value) if steps is None else warmup_text(value, steps)


def _said(table: TableValue) -> str:
    """The tables' value: `2e-4`, `linear`; a warmup's share in percent, `5 to 10%`."""
    if table.parameter != "warmup_ratio" or table.low is None or table.high is None:
        return table.text
    low, high = share_text(table.low), share_text(table.high)
    shown = low if low == high else f"{low.removesuffix('%')} to {high}"
    return shown + table.text.removeprefix(number_range(table.low, table.high))


def table_lines(parameter: ParameterAnswer, answer: Answer) -> list[TableLine]:
    """Each value of the tables: the guideline default's own first, warnings last."""
    return [
        TableLine(
            value=_said(value) or _NO_VALUE,
            rows=plural(len(value.rows), "row"),
            position=_position(value),
            cost=_cost_cell(value, answer),
            word=value.word.replace("_", " "),
        )
        for value in parameter.tables
    ]


def shared_cost(answer: Answer) -> str:
    """What to bear in mind of costs that are not of one value alone; "" where there are none."""
    costs = [value.cost for found in answer.parameters for value in found.tables if value.cost is not None]
    said = []
    if modelled := max((cost.in_model for cost in costs), default=0):
        said.append(
            "(model): that value alone, all else as the best, with its 95% interval, from "
            f"{modelled} finished trials."
        )
    values = [value for found in answer.parameters for value in found.tables]
    joint = [value.cost for value in values if _is_joint(value)]
    if joint or any(_is_shared(cost) for cost in costs):
        said.append(
            "Not measured alone: every trial with the value differs from the best in others too, and the "
            "trials cannot tell what each costs."
        )
    if any(cost.seeds and cost.differs_in and cost.trial is not None for cost in costs):
        said.append("(trial): of that trial again, with all of its own values.")
    if of_loss := _of_loss(answer):
        said.append(of_loss)
    return " ".join(said)


def _of_loss(answer: Answer) -> str:
    """In a sweep that searched by its metric: what costs and words are about; "" elsewhere."""
    if not answer.is_by_metric or not answer.parameters:
        return ""
    return (
        f"Costs and verdicts are of the loss, against its lowest; the best here is that by {answer.metric}."
    )


def _is_shared(cost: Gap) -> bool:
    """Whether a cost is mostly that of other hyperparameters: of a single run that differs in them."""
    return bool(cost.differs_in) and not cost.seeds


def _is_joint(table: TableValue) -> bool:
    """Whether the cost is that of all the tables' values together and decided nothing about this one."""
    cost = table.cost
    is_all = cost is not None and bool(cost.seeds and cost.differs_in) and cost.trial is None
    return is_all and table.word in ("undecided", "not_tested")


def together(answer: Answer) -> tuple[str, str] | None:
    """That a worse default leaves open which of its values costs how much, and the command that tells."""
    gap = answer.default.gap
    own = [value for found in answer.parameters for value in found.tables if value.is_default]
    is_open = any(value.word == "undecided" for value in own)
    ran_alone = any(value.cost and value.cost.seeds and not value.cost.differs_in for value in own)
    if answer.sure != "default_costs" or not is_open or ran_alone or gap is None or gap.percent is None:
        return None
    cost = percent_text(gap.percent, plus=False)
    command = answer.rows_alone
    if command is None:
        return None
    time = "" if command.seconds is None else f" ({about(command.seconds)})"
    return f"The tables' values cost {cost} together. Each of them alone{time}:", command.command


def parameter_sentence(parameter: ParameterAnswer, answer: Answer) -> str:
    """`Best here 4.24e-3, 21 times the tables' 2e-4 (6 rows). 2e-4 costs 8.8% in this sweep. Undecided.`"""
    advised = [value for value in parameter.tables if not value.is_warning]
    first = next(iter(advised or parameter.tables), None)
    parts = [_best_sentence(parameter, first, answer)]
    if first is not None and not first.is_warning:
        parts += _cost_sentences(first, answer)
    if first is not None:
        parts.append(f"{capital(first.word.replace('_', ' '))}.")
    if parameter.edge:
        parts.append(f"It is at the {parameter.edge} end of what was searched: widen the range.")
    return " ".join(parts)


def times_text(ratio: float) -> str:
    """`21 times`, `1.5 times`; of a ratio below 1 its reciprocal."""
    size = ratio if ratio >= 1 else 1 / ratio
    shown = f"{size:.1f}" if size < 9.95 else number(float(f"{size:.2g}"))
    return f"{shown.rstrip('0').rstrip('.') if '.' in shown else shown} times"


def _lower_title(name: str) -> str:
    return parameter_title(name).partition(",")[0].lower()


def _near_text(ratio: float) -> str:
    """Of a ratio within 10% of 1: `2%`, "" below half a percent."""
    percent = 100 * abs(ratio - 1)
    return f"{percent:.0f}%" if percent >= 0.5 else ""


def _is_near(ratio: float) -> bool:
    return 0.9 < ratio < 1.1


def _best_sentence(parameter: ParameterAnswer, table: TableValue | None, answer: Answer) -> str:
    if parameter.unused_beside:
        return f"Not used here: the best scheduler, {parameter.unused_beside}, has no warmup."
    if parameter.best is None:
        return "No best value here."
    best = f"Best here {_best_value(parameter, answer)}"
    if table is None:
        return f"{best}."
    rows = f"({plural(len(table.rows), 'row')})"
    if table.is_warning:
        return f"{best}; the tables warn of {_said(table).replace(' too ', ' as too ')} {rows}."
    return f"{best}, {_against(table)} {rows}."


def _against(table: TableValue) -> str:
    """The best against the tables' value, as the rest of a sentence."""
    is_range = table.low != table.high
    theirs = f"the tables' {_said(table)}"
    if table.position == "inside":
        if table.choices:
            return f"as the tables say: {_said(table)}" if len(table.choices) == 1 else f"one of {theirs}"
        return f"inside {theirs}" if is_range else f"the tables' own {_said(table)}"
    if table.position == "outside":
        return f"not {theirs}"
    if table.ratio is None:
        return f"{'higher' if table.position == 'above' else 'lower'} than {theirs}"
    if _is_near(table.ratio):
        size = _near_text(table.ratio)
        return f"{size} {table.position} {theirs}" if size else f"about the same as {theirs}"
    if table.position == "above":
        return f"{times_text(table.ratio)} {'the top of ' if is_range else ''}{theirs}"
    return f"{times_text(table.ratio)} lower than {theirs}"


def _cost_sentences(table: TableValue, answer: Answer) -> list[str]:
    if table.cost is None:
        return [f"What {_said(table)} costs was not measured."]
    if table.cost.nats == 0 and table.position == "inside":
        return []
    if _is_shared(table.cost):
        others = conjunction([_lower_title(name) for name in table.cost.differs_in])
        is_default = table.cost.trial == answer.default.trial
        who = "the guideline default" if is_default else f"trial {table.cost.trial}"
        return [f"What {_said(table)} costs alone is not known: {who} has another {others} too."]
    if _is_joint(table):
        return ["It was run again only with the tables' other values; what it costs alone is not known."]
    return [f"{capital(_said(table))} {cost_words(table.cost)}{_where(table.cost, answer)}."]


def _where(cost: Gap, answer: Answer) -> str:
    """What ran, behind a cost in a sentence."""
    if cost.seeds:
        return " together with the tables' other values" if cost.differs_in else ""
    if cost.in_model:
        return f" by itself, by a model of {plural(cost.in_model, 'finished trial')}"
    where = " in one run" if answer.seeds else " in this sweep"
    if cost.trial is None:
        return where
    is_default = cost.trial == answer.default.trial
    return f"{where} ({'the guideline default' if is_default else f'trial {cost.trial}'})"


def _position(table: TableValue) -> str:
    if not table.text:
        return ""
    if table.position == "inside":
        return "inside" if table.low != table.high or len(table.choices) > 1 else "the same"
    if table.position == "outside":
        return "another"
    if table.position not in ("above", "below"):
        return "not used"
    side = "higher" if table.position == "above" else "lower"
    if table.ratio is None:
        return side
    if _is_near(table.ratio):
        size = _near_text(table.ratio)
        return f"{size} {side}" if size else "about the same"
    return f"{times_text(table.ratio)} {side}"


def _cost_cell(table: TableValue, answer: Answer) -> str:
    if not table.text:
        return ""
    if table.cost is None:
        return "not measured"
    if table.cost.nats == 0 and table.position == "inside":
        return "nothing"
    if _is_shared(table.cost) or _is_joint(table):
        return "not measured alone"
    return gap_text(table.cost, with_seeds=False, source=_source(table.cost, answer))


def _source(cost: Gap, answer: Answer) -> str:
    """What ran, in brackets behind a cost."""
    if cost.seeds:
        if not cost.differs_in:
            return ""
        return WITH_ALL if cost.trial is None else f"trial {cost.trial}"
    if cost.in_model:
        return "model"
    if cost.trial is None:
        return ""
    return "default" if cost.trial == answer.default.trial else f"trial {cost.trial}"


def capital(text: str) -> str:
    """The text with a capital letter; the rest stays as it is."""
    return text[:1].upper() + text[1:]
