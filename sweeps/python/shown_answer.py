"""The answer of a sweep as it shows itself in Python: the sentences that every other place has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from files_and_text.shown import Shown
from results.answer.answer import Answer, Compared, MergedBest
from results.text.answer import gap_text, loss_text, sure_text, use_text
from results.text.gaps import short_loss


@dataclass(frozen=True, kw_only=True, repr=False)
class ShownAnswer(Shown, Answer):
    """An answer with a short text of itself."""

    @classmethod
    def of(cls, answer: Answer) -> ShownAnswer:
        """The same answer."""
        return cls(**{field.name: getattr(answer, field.name) for field in fields(answer)})

    def _shown(self) -> tuple[str, Mapping[str, str]]:
        if self.best is None:
            return f"Answer of {self.sweep!r}", {"use": "nothing yet", "how sure": sure_text(self)}
        facts = {
            "use": use_text(self),
            "loss": loss_text(self.best.loss),
            "guideline default": _beside(self.default),
            "untouched base": _beside(self.base),
            **({} if (other := self.unquantized_base) is None else {"not quantized": _beside(other)}),
            **({} if self.merged is None else {f"merged in {self.merged.dtype}": _merged(self.merged)}),
            "how sure": sure_text(self),
        }
        return f"Answer of {self.sweep!r}: trial {self.best.trial}", facts


def _merged(merged: MergedBest) -> str:
    cost = "" if merged.gap is None else f", {gap_text(merged.gap)}"
    return f"{short_loss(merged.loss)}{cost}"


def _beside(compared: Compared) -> str:
    if compared.loss is None:
        return compared.outcome.replace("_", " ")
    cost = "" if compared.gap is None else f", {gap_text(compared.gap)}"
    return f"{short_loss(compared.loss.value)}{cost}"
