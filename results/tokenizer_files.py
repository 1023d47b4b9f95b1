"""Find the files of a saved tokenizer, its chat template included."""

from __future__ import annotations

from pathlib import Path

TEMPLATE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_PATTERNS = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    TEMPLATE,
    "additional_chat_templates/*.jinja",
)
"""File names that transformers' tokenizers save."""


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """Name -> file of the tokenizer saved in `folder`; empty where there is none."""
    if not (folder / _CONFIG).is_file():
        return {}
    found = sorted(file for pattern in _PATTERNS for file in folder.glob(pattern) if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in found}
