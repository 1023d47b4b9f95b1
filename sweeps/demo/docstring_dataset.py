"""The demo's dataset: file and signature -> first paragraph of the docstring, from the standard library.

The sources are parsed, never imported. No completion occurs in the base's pretraining text, and no evaluation
completion in the training records.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write
from sweeps.demo.library_sources import (
    FunctionNode,
    SourceFile,
    docstring_node,
    library_root,
    pretraining_text,
    source_files,
)

NUM_RECORDS = 3000
"""Most records, training and evaluation together."""
EVAL_SHARE = 0.1
MAX_PROMPT_CHARACTERS = 200
MAX_COMPLETION_CHARACTERS = 160
"""With both limits nearly every record is below 96 tokens of the demo's tokenizer."""
MIN_COMPLETION_WORDS = 4
"""Shorter ones ("Return x.") also occur in comments, and teach little."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class DocstringRecord:
    """One example."""

    prompt: str
    """A comment with the file, the class line of a method, the `def` line, and the opening quotes."""
    completion: str
    """First paragraph of the docstring on one line, cut after a sentence when it is long."""

    @property
    def digest(self) -> str:
        """sha256 of the prompt in hexadecimal: decides between training and evaluation, and which records are
        kept."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()

    @property
    def is_eval(self) -> bool:
        """Whether the record is for evaluation; does not depend on the other records."""
        # The last digits: the first digits decide which records are kept.
        return int(self.digest[-8:], 16) < EVAL_SHARE * 16**8


def cached_dataset(
    cache: Path,
    name: str,
    *,
    form: Callable[[DocstringRecord], dict[str, Any]] = asdict,
    source_root: Path | None = None,
) -> tuple[Path, Path]:
    """`train.jsonl` and `eval.jsonl` in the folder of this `name` and this Python, written on first use.

    `form` makes a line of a record; by default {"prompt", "completion"}. Each file appears complete or not at
    all; the same Python gives the same bytes. `source_root` replaces the standard library. Raises
    FileNotFoundError when this Python has no library sources.
    """
    folder = cache / f"{name}-python-{platform.python_version()}"
    train, evaluation = folder / "train.jsonl", folder / "eval.jsonl"
    if not evaluation.is_file():  # written last
        records = read_records(source_root or library_root())
        folder.mkdir(parents=True, exist_ok=True)
        for path, is_eval in ((train, False), (evaluation, True)):
            lines = [json.dumps(form(r), ensure_ascii=False) for r in records if r.is_eval == is_eval]
            atomic_write(path, "".join(f"{line}\n" for line in lines))
    return train, evaluation


def read_records(root: Path, *, num_records: int = NUM_RECORDS) -> list[DocstringRecord]:
    """At most `num_records` records, training and evaluation together, in the order of files and functions.

    Prompts are unique, and so are completions: a sentence that describes two functions could otherwise be in
    both training and evaluation.
    """
    sources = source_files(root)
    by_prompt: dict[str, DocstringRecord] = {}
    seen: set[tuple[str, ...]] = set()
    for source in sources:
        for record in _records_of(source):
            words = _words(record.completion)
            if record.prompt not in by_prompt and words not in seen:
                seen.add(words)
                by_prompt[record.prompt] = record
    known = _occurring_in([pretraining_text(source) for source in sources], seen)
    fresh = [record for record in by_prompt.values() if _words(record.completion) not in known]
    kept = {record.digest for record in sorted(fresh, key=lambda record: record.digest)[:num_records]}
    return [record for record in fresh if record.digest in kept]


def _records_of(source: SourceFile) -> Iterator[DocstringRecord]:
    for class_name, function in _functions(source.tree.body, None):
        docstring = docstring_node(function)
        if docstring is None:
            continue
        completion = first_paragraph(str(docstring.value))
        prompt = _prompt(source.name, class_name, function)
        if completion is not None and len(prompt) <= MAX_PROMPT_CHARACTERS:
            yield DocstringRecord(prompt=prompt, completion=completion)


def _functions(body: list[ast.stmt], class_name: str | None) -> Iterator[tuple[str | None, FunctionNode]]:
    """Functions, and methods with their class's name; also under `if` and `try`, but not inside functions."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield class_name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, node.name)
        elif isinstance(node, ast.If | ast.Try):
            handlers = node.handlers if isinstance(node, ast.Try) else []
            for branch in (node.body, *(handler.body for handler in handlers), node.orelse):
                yield from _functions(branch, class_name)


def _prompt(file_name: str, class_name: str | None, function: FunctionNode) -> str:
    keyword = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(function.returns)}" if function.returns is not None else ""
    owner, indent = ("", "") if class_name is None else (f"class {class_name}:\n", "    ")
    definition = f"{keyword} {function.name}({ast.unparse(function.args)}){returns}:"
    # In pretraining such quotes preceded prose (of classes and modules), so the base continues with prose.
    return f'# {file_name}\n{owner}{indent}{definition}\n{indent}    """'


def first_paragraph(docstring: str) -> str | None:
    """The first paragraph with single spaces, cut after the last sentence that fits; None when it is
    unsuitable.

    Unsuitable: fewer than MIN_COMPLETION_WORDS words, a first sentence over MAX_COMPLETION_CHARACTERS, an
    interpreter session, control characters or lone surrogates.
    """
    text = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    if len(text) > MAX_COMPLETION_CHARACTERS:
        cut = text.rfind(". ", 0, MAX_COMPLETION_CHARACTERS)
        text = text[: cut + 1]
    if len(_words(text)) < MIN_COMPLETION_WORDS or text.startswith(">>>") or not text.isprintable():
        return None
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))


def _occurring_in(texts: list[str], wanted: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Those of `wanted` (sequences of words) that occur in a text, regardless of punctuation."""
    by_start: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for sequence in wanted:
        by_start.setdefault(sequence[:MIN_COMPLETION_WORDS], []).append(sequence)
    found = set()
    for text in texts:
        words = _words(text)
        starts = zip(*(words[shift:] for shift in range(MIN_COMPLETION_WORDS)), strict=False)
        for begin, start in enumerate(starts):
            for sequence in by_start.get(start, ()):
                if words[begin : begin + len(sequence)] == sequence:
                    found.add(sequence)
    return found
