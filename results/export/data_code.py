"""The sweep's own data code beside a training script, so that it makes the tokens that the trials trained on.

`lora_runner.data` is read as text from where it is installed and never imported: a package of its own in the
export, with its imports renamed.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from results.errors import ExportError

PACKAGE = "qlora_data"
_RUNNER = "lora_runner"
_HEAD = (
    "# {source} of qlora-sweeps: the code that the trials' data went through. Only its imports are renamed.\n"
)


@functools.cache
def data_code() -> Mapping[str, str]:
    """Path in the export -> text of the modules that turn records into token ids and labels.

    Raises ExportError when the runner is not installed, or when its data code needs more of it than its
    errors, which would have to travel too.
    """
    found = find_spec(_RUNNER)
    if found is None or not found.submodule_search_locations:
        raise ExportError(
            f"a training script carries the data code of {_RUNNER}, which is not installed here"
        )
    folder = Path(found.submodule_search_locations[0])
    modules = sorted((folder / "data").rglob("*.py"))
    sources = {file: file.relative_to(folder / "data").as_posix() for file in modules}
    sources[folder / "errors.py"] = "errors.py"
    return {
        f"{PACKAGE}/{name}": renamed(file.read_text(encoding="utf-8"), file.relative_to(folder).as_posix())
        for file, name in sources.items()
    }


def renamed(text: str, place: str) -> str:
    """The text of the runner's module `place` as a module of the export; ExportError as above."""
    text = re.sub(rf"\b{_RUNNER}\.data\b", PACKAGE, text)
    text = re.sub(rf"\b{_RUNNER}\.errors\b", f"{PACKAGE}.errors", text)
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if wrong := [name for name in names if name.split(".")[0] == _RUNNER]:
            raise ExportError(
                f"{_RUNNER}/{place} imports {wrong[0]}, which a training script does not carry along"
            )
    return _HEAD.format(source=f"{_RUNNER}/{place}") + text
