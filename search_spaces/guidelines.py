"""All guideline rows by id: those of guidelines.yaml, changed and extended by the user's own files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from files_and_text.nearest_name import did_you_mean, nearest
from files_and_text.problems import InputError
from files_and_text.value_checker import ValueChecker
from files_and_text.yaml_lines import load_yaml
from search_spaces.read_rows import read_row, row_from_dict
from search_spaces.rows import TOPICS, GuidelineRow, Source

BUILT_IN = Path(__file__).with_name("guidelines.yaml")


class Guidelines(Mapping[str, GuidelineRow]):
    """All rows by id, in the order of their files."""

    def __init__(self, rows: Iterable[GuidelineRow]) -> None:
        self._rows = {row.id: row for row in rows}

    def __getitem__(self, row_id: str) -> GuidelineRow:
        try:
            return self._rows[row_id]
        except KeyError:
            raise KeyError(f"there is no guideline row {row_id!r}.{nearest(row_id, self._rows)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def by_topic(self) -> dict[str, list[GuidelineRow]]:
        """Rows by topic, in the order of TOPICS, without empty topics."""
        topics = {topic: [row for row in self.values() if row.topic == topic] for topic in TOPICS}
        return {topic: rows for topic, rows in topics.items() if rows}

    def scenarios(self) -> list[str]:
        """The names of the scenarios that rows are written for."""
        names = [row.when.scenario for row in self.values() if row.topic == "scenario"]
        return list(dict.fromkeys(name for name in names if name is not None))

    def nearest_size(self, topic: str, model_size: float) -> tuple[list[GuidelineRow], str | None]:
        """The rows of topic `model_size` or `batch_size` for a number of parameters, and a note if none fits.

        The nearest in log distance then; a tie goes to the larger models, which have the lower rates.
        """
        rows = [row for row in self.values() if row.topic == topic and row.when.limits_size]
        if not rows:
            return [], None
        distances = {row.id: row.when.size_distance(model_size) for row in rows}
        least = min(distances.values())
        # With a tolerance, since a size halfway between two rows should be a tie, whatever the rounding.
        found = [row for row in rows if distances[row.id] - least < 1e-9]
        if least == 0.0:
            return found, None
        largest = max(row.when.model_size_billions_low or 0.0 for row in found)
        found = [row for row in found if (row.when.model_size_billions_low or 0.0) == largest]
        position = "between rows" if _is_between(rows, model_size) else "outside all rows"
        names = ", ".join(row.condition or row.id for row in found)
        return found, f"nearest row {names}: {model_size:.3g} parameters lie {position}"

    def applying(
        self, *, scenario: str, model_size: float, max_steps: int, method: str, train_embeddings: bool
    ) -> list[GuidelineRow]:
        """The rows that apply to such a run (`model_size` in parameters), with those of the nearest size."""
        near = {
            row.id
            for topic in ("model_size", "batch_size")
            for row in self.nearest_size(topic, model_size)[0]
        }
        return [
            row
            for row in self.values()
            if row.when.applies_to(
                scenario=scenario,
                model_size=None if row.id in near else model_size,
                max_steps=max_steps,
                method=method,
                train_embeddings=train_embeddings,
            )
        ]

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data of every row, for JSON; `from_list` reads it back."""
        return [row.to_dict() for row in self.values()]

    @classmethod
    def from_list(cls, data: Iterable[Mapping[str, Any]]) -> Guidelines:
        """The rows that `to_list` wrote; raises InputError."""
        return cls(row_from_dict(item) for item in data)


def load_guidelines(*user_files: Path | str) -> Guidelines:
    """The built-in rows, changed and extended by the user's files in their order.

    A file has `rows:` (id -> fields) and may have `sources:` (name -> document, url). A new id adds a row; a
    known id changes the given fields of that row. Raises InputError with all problems of all files.
    """
    rows = dict(_built_in())
    problems = []
    for file in user_files:
        try:
            rows = _read_file(Path(file), rows)
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    return Guidelines(rows.values())


@lru_cache(maxsize=1)
def _built_in() -> Mapping[str, GuidelineRow]:
    return _read_file(BUILT_IN, {})


def _read_file(path: Path, known: Mapping[str, GuidelineRow]) -> dict[str, GuidelineRow]:
    data, lines = load_yaml(path)
    check = ValueChecker(str(path), lines)
    body = check.mapping(data, (), ("sources", "rows"))
    sources = {}
    if "sources" in body:
        for name, value in check.mapping(body["sources"], ("sources",)).items():
            texts = check.mapping(value, ("sources", name), ("document", "url"))
            texts = {key: check.text(item, ("sources", name, key)) for key, item in texts.items()}
            if "document" in texts:
                sources[name] = Source(**texts)
            else:
                check.add(f"the source {name!r} needs a document.", ("sources", name))
    rows = dict(known)
    if "rows" not in body:
        check.add("a guidelines file needs rows: a mapping of row ids to their fields.", ())
    for row_id, value in check.mapping(body.get("rows", {}), ("rows",)).items():
        at = ("rows", row_id)
        base = known.get(row_id)
        if base is None and isinstance(value, Mapping) and "topic" not in value and known:
            # Without a topic it cannot be a new row, so the id was meant to be a known one.
            check.add(
                f"there is no row {row_id!r}, and a new row needs a topic.{did_you_mean(row_id, known)}", at
            )
            continue
        row = read_row(
            row_id, value, check, at, default_source=Source(document=path.name), sources=sources, base=base
        )
        if row is not None:
            rows[row_id] = row
    check.raise_if_any()
    return rows


def _is_between(rows: list[GuidelineRow], model_size: float) -> bool:
    billions = model_size / 1e9
    lows = [row.when.model_size_billions_low or 0.0 for row in rows]
    highs = [row.when.model_size_billions_high or float("inf") for row in rows]
    return min(lows) < billions < max(highs)
