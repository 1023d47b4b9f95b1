"""What the guideline default costs over other evaluation records, in words."""

from __future__ import annotations

from results.answer.answer import Answer
from results.comparison.records import RecordComparison
from results.text.gaps import percents_text


def records_text(answer: Answer) -> str:
    """`Over other evaluation records the default costs 8.1 to 12.3%.`; "" where that is not known."""
    found = answer.over_records
    if found is None or answer.default.gap is None:
        return ""
    margin = 100 * answer.margin
    doubt = ""
    if found.low_percent < margin < found.percent or found.high_percent > -margin > found.percent:
        doubt = ", so on others it may not matter"
    return (
        f"Over other evaluation records the default costs {record_interval_text(found)}{doubt}.{_few(found)}"
    )


def record_interval_text(found: RecordComparison) -> str:
    """`8.1 to 12.3%`."""
    return percents_text(found.low_percent, found.high_percent)


def _few(found: RecordComparison) -> str:
    if found.rests_on is None:
        return ""
    one = "1 record" if found.rests_on == 1 else f"{found.rests_on} records"
    return f" It rests on {one} of {found.records}."
