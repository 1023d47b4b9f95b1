"""Read a published table of runs: which config of which model ended at which loss."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from files_and_text.choices import SCHEDULERS
from files_and_text.nearest_name import nearest
from results.comparison.constants import LARGEST_LOSS
from results.errors import TableError
from search_spaces.dimension import Value
from search_spaces.rows import PARAMETERS

MEANINGS = ("model", "eval_loss", "seed", *PARAMETERS)
ALIASES = {"rank": "lora_r", "lr": "learning_rate"}
REQUIRED = ("learning_rate", "eval_loss")
TEXT = ("lr_scheduler_type",)
INTEGERS = ("lora_r", "seed", "per_device_train_batch_size", "warmup_steps")
MAY_BE_ZERO = ("seed", "lora_dropout", "weight_decay", "warmup_ratio", "warmup_steps")


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """One line of the table."""

    line: int
    model: str
    values: Mapping[str, Value]
    eval_loss: float
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """The lines that could be read, and why the others could not."""

    name: str
    sha256: str
    columns: Mapping[str, str]
    """Meaning -> column of the file."""
    runs: Sequence[PublishedRun]
    left_out: Sequence[str]
    """`line 7: ...`, one each."""
    loss_step: float
    """Step to which the losses are rounded, by their decimals; nats per token."""

    @property
    def models(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(run.model for run in self.runs))


def parse_columns(text: str) -> dict[str, str]:
    """`model=Model,rank=r` as meaning -> column. TableError for an unknown or repeated meaning."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        meaning, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            raise TableError(f"--columns takes MEANING=COLUMN, separated by commas; got {part!r}")
        meaning = ALIASES.get(meaning, meaning)
        if meaning not in MEANINGS:
            raise TableError(f"unknown meaning of a column: {meaning!r}.{nearest(meaning, MEANINGS)}")
        if meaning in found:
            raise TableError(f"--columns gives {meaning} twice: {found[meaning]!r} and {column!r}")
        found[meaning] = column
    return found


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> PublishedTable:
    """Read a CSV of runs: UTF-8 with or without BOM, separated by commas, semicolons or tabs.

    `columns` maps meanings (`MEANINGS`) to column names; a column named like its meaning can be
    left out. Lines with a missing or impossible value are skipped and listed. Raises TableError when the file
    cannot be read, a column is missing or ambiguous, or no line is left.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TableError(f"the table {path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"the table {path} must be UTF-8 text; byte {error.start} is not") from None
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise TableError(f"the table {path} is no CSV at line {reader.line_num}: {error}") from None
    if not lines:
        raise TableError(f"the table {path} is empty; its first line names the columns")
    header = [cell.strip() for cell in lines[0][1]]
    chosen = _choose(header, columns or {}, path)
    positions = {meaning: header.index(column) for meaning, column in chosen.items()}
    runs: list[PublishedRun] = []
    left_out: list[str] = []
    seen: set[tuple[object, ...]] = set()
    decimals = 0
    for line, cells in lines[1:]:
        try:
            run = _run(line, cells, len(header), positions, path.stem, decimal_comma=delimiter == ";")
        except ValueError as error:
            left_out.append(f"line {line}: {error}")
            continue
        if run.seed is not None:
            key = (run.model, run.seed, *sorted(run.values.items()))
            if key in seen:
                left_out.append(f"line {line}: the same config and seed as a line above")
                continue
            seen.add(key)
        runs.append(run)
        decimals = max(decimals, _decimals(cells[positions["eval_loss"]]))
    if not runs:
        reasons = f": {left_out[0]}" if left_out else ""
        raise TableError(f"the table {path} holds no run that could be read{reasons}")
    return PublishedTable(
        name=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        columns=chosen,
        runs=runs,
        left_out=left_out,
        loss_step=10.0**-decimals,
    )


def _delimiter(text: str) -> str:
    first = text.lstrip().split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _choose(header: Sequence[str], columns: Mapping[str, str], path: Path) -> dict[str, str]:
    counts = Counter(header)
    chosen = {meaning: meaning for meaning in MEANINGS if meaning in counts} | dict(columns)
    for alias, meaning in ALIASES.items():
        if meaning not in chosen and alias in counts:
            chosen[meaning] = alias
    for meaning, column in chosen.items():
        if column not in counts:
            raise TableError(
                f"the table {path} has no column {column!r} (for {meaning}).{nearest(column, header)}"
            )
        if counts[column] > 1:
            raise TableError(
                f"the table {path} has {counts[column]} columns {column!r}; {meaning} needs exactly one"
            )
    for meaning in REQUIRED:
        if meaning not in chosen:
            raise TableError(
                f"the table {path} needs a column for {meaning}: give --columns {meaning}=COLUMN."
                f"{nearest(meaning, header)}"
            )
    return {meaning: chosen[meaning] for meaning in MEANINGS if meaning in chosen}


def _run(
    line: int,
    cells: Sequence[str],
    width: int,
    positions: Mapping[str, int],
    default_model: str,
    *,
    decimal_comma: bool,
) -> PublishedRun:
    """Raises ValueError that says what is wrong with the line."""
    if len(cells) != width:
        raise ValueError(f"{len(cells)} values under {width} columns")
    said = {meaning: cells[position].strip() for meaning, position in positions.items()}
    model = " ".join(said.pop("model", default_model).split())
    if not model:
        raise ValueError("no model")
    loss = _number("eval_loss", said.pop("eval_loss"), decimal_comma)
    if abs(loss) > LARGEST_LOSS:
        raise ValueError(f"eval_loss is {loss:g}, no loss in nats per token")
    values: dict[str, Value] = {}
    for meaning, cell in said.items():
        if meaning in TEXT:
            if cell not in SCHEDULERS:
                raise ValueError(f"{meaning} is {cell!r}.{nearest(cell, SCHEDULERS)}")
            values[meaning] = cell
            continue
        number = _number(meaning, cell, decimal_comma)
        if number < 0 or (number == 0 and meaning not in MAY_BE_ZERO):
            raise ValueError(f"{meaning} is {cell}, which no run can have")
        values[meaning] = int(number) if meaning in INTEGERS and number == int(number) else number
    seed = values.pop("seed", None)
    return PublishedRun(
        line=line, model=model, values=values, eval_loss=loss, seed=None if seed is None else int(seed)
    )


def _number(meaning: str, cell: str, decimal_comma: bool) -> float:
    if not cell:
        raise ValueError(f"{meaning} is missing")
    try:
        number = float(cell.replace(",", ".") if decimal_comma else cell)
    except ValueError:
        raise ValueError(f"{meaning} is {cell[:40]!r}, no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{meaning} is {cell[:40]!r}, no finite number")
    return number


def _decimals(cell: str) -> int:
    mantissa, _, exponent = cell.strip().lower().replace(",", ".").partition("e")
    digits = len(mantissa.partition(".")[2])
    return min(12, max(0, digits - (int(exponent) if exponent else 0)))
