"""The sources of Python's standard library: text for pretraining, syntax trees to read docstrings from.

The demo's pretraining and its fine-tuning use the same files. `pretraining_text` removes the docstrings of
all functions, because they are the answers of the fine-tuning and evaluation data.
"""

from __future__ import annotations

import ast
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests and generated tables are not typical code, pydoc_data repeats the documentation, and site-packages
# differ between machines.
SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "__phello__",
        "dist-packages",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    }
)
SKIPPED_PREFIXES = ("_sysconfigdata", "config-")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One parsed source file."""

    name: str
    """Path below the root of the library, with forward slashes."""
    text: str
    """The source, newlines as `\\n`."""
    tree: ast.Module
    """The syntax tree of `text`."""


def library_root() -> Path:
    """The folder of the running Python's standard library; FileNotFoundError when it has no sources."""
    root = Path(sysconfig.get_paths()["stdlib"])
    if not (root / "ast.py").is_file():
        raise FileNotFoundError(
            f"The demo reads the sources of Python's standard library, but {root} has none (no ast.py there)."
            " Use a Python whose library is installed as .py files."
        )
    return root


def source_files(root: Path) -> list[SourceFile]:
    """The source files below `root` that the demo reads, in a fixed order, without those that do not
    parse."""
    found = []
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).parts
        if SKIPPED_FOLDERS.intersection(parts) or any(part.startswith(SKIPPED_PREFIXES) for part in parts):
            continue
        try:
            with tokenize.open(path) as file, warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                warnings.simplefilter("ignore", DeprecationWarning)
                text = file.read()
                tree = ast.parse(text)
        except (SyntaxError, UnicodeDecodeError):
            continue
        found.append(SourceFile(name="/".join(parts), text=text, tree=tree))
    return found


def docstring_node(function: FunctionNode) -> ast.Constant | None:
    """The node of a function's docstring, or None."""
    match function.body[0]:
        case ast.Expr(value=ast.Constant(value=str()) as docstring):
            return docstring
    return None


def pretraining_text(source: SourceFile) -> str:
    """The source without the docstrings of its functions and methods, nested ones included.

    A function with nothing but a docstring gets `pass`. Docstrings of modules and classes stay: they are the
    English prose that the base learns from.
    """
    lines = [line.encode() + b"\n" for line in source.text.split("\n")]  # ast counts columns in utf-8 bytes
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    content = b"".join(lines)
    for begin, end, replacement in sorted(_cuts(source.tree, starts), reverse=True):
        if content[end:].lstrip(b" \t")[:1] == b";":
            replacement = b"pass"
        line_begin = content.rfind(b"\n", 0, begin) + 1
        if not replacement and not content[line_begin:begin].strip() and content[end : end + 1] == b"\n":
            begin, end = line_begin, end + 1  # do not leave a blank line
        content = content[:begin] + replacement + content[end:]
    return content.decode().rstrip("\n") + "\n"


def _cuts(tree: ast.Module, starts: list[int]) -> Iterator[tuple[int, int, bytes]]:
    """Begin, end (byte offsets) and replacement of every function docstring; they do not overlap."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (docstring := docstring_node(node)) is not None:
            assert docstring.end_lineno is not None
            assert docstring.end_col_offset is not None
            begin = starts[docstring.lineno - 1] + docstring.col_offset
            end = starts[docstring.end_lineno - 1] + docstring.end_col_offset
            yield begin, end, b"pass" if len(node.body) == 1 else b""
