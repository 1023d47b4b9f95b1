"""Conversations made of the standard library: a question about a function's signature, and its docstring.

The same functions as the demo's. The model has most likely read them in its pretraining; what it has not seen
is this way of asking, and that a bare sentence is wanted.
"""

from __future__ import annotations

import json
from pathlib import Path

from files_and_text.atomic_files import atomic_write
from sweeps.demo.corpus import library_root
from sweeps.demo.docstrings import DocstringRecord, read_records

QUESTION = "What does this Python function do? Answer with the first sentence of its docstring."
OPENING = '"""'


def conversation(record: DocstringRecord) -> list[dict[str, str]]:
    """The record as two turns; the signature in a block of code, without the docstring's opening quotes."""
    signature = record.prompt.rstrip().removesuffix(OPENING).rstrip()
    return [
        {"role": "user", "content": f"{QUESTION}\n\n```python\n{signature}\n```"},
        {"role": "assistant", "content": record.completion},
    ]


def write_conversations(folder: Path, *, source_root: Path | None = None) -> tuple[Path, Path]:
    """Write `train.jsonl` and `eval.jsonl` of {"messages": [...]} objects; return both paths.

    Errors: FileNotFoundError where this Python has no library sources.
    """
    records = read_records(source_root or library_root())
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.jsonl", folder / "eval.jsonl"
    for path, is_eval in zip(paths, (False, True), strict=True):
        lines = [
            json.dumps({"messages": conversation(record)}, ensure_ascii=False) + "\n"
            for record in records
            if record.is_eval == is_eval
        ]
        atomic_write(path, "".join(lines))
    return paths
