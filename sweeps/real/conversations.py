"""The dataset: a question about a function's signature, answered with its docstring.

From the same functions of the standard library as the demo. The model has most likely seen them in
pretraining, but not in this form.
"""

from __future__ import annotations

import json
from pathlib import Path

from files_and_text.atomic_files import atomic_write
from sweeps.demo.docstring_dataset import DocstringRecord, read_records
from sweeps.demo.library_sources import library_root

QUESTION = "What does this Python function do? Answer with the first sentence of its docstring."
OPENING = '"""'


def conversation(record: DocstringRecord) -> list[dict[str, str]]:
    """The record as two turns; the signature is in a code block, without the docstring's opening quotes."""
    signature = record.prompt.rstrip().removesuffix(OPENING).rstrip()
    return [
        {"role": "user", "content": f"{QUESTION}\n\n```python\n{signature}\n```"},
        {"role": "assistant", "content": record.completion},
    ]


def write_conversations(folder: Path, *, source_root: Path | None = None) -> tuple[Path, Path]:
    """Write `train.jsonl` and `eval.jsonl` of {"messages": [...]} objects; return both paths.

    Raises FileNotFoundError when this Python has no library sources.
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
