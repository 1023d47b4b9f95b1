"""Files that accompany an exported adapter: a script that merges it into its base, and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from results.export.config_values import (
    Config,
    auto_class,
    base_kind,
    chat_template_text,
    section,
)
from results.export.generated_text import bullet_list, provenance_lines, python_literal, wrap_text
from results.export.jinja_templates import render_template
from results.tokenizer_files import TEMPLATE, tokenizer_files

MERGE_SCRIPT = "merge.py"


def other_base_warning(config: Config) -> str:
    """That a merged model, or one quantized again, differs from the base that the adapter was trained on."""
    return (
        f"The adapter was trained and measured on the {base_kind(config)}; another base is rounded in "
        "another way, so its loss is another one. Measure it again."
    )


def merge_script(config: Config, lossy: Sequence[str], notes: Sequence[str]) -> str:
    """Python source that writes the merged model, in bfloat16 unless another dtype is asked for."""
    model = section(config, "model")
    return render_template(
        "merge.py.jinja",
        provenance="\n".join(wrap_text(line) for line in provenance_lines(config)),
        model=python_literal(model["name"]),
        revision=python_literal(model.get("revision")),
        trusted=model.get("trust_remote_code") is True,
        model_class=auto_class(config),
        template=TEMPLATE,
        lossy=bullet_list(lossy),
        notes=bullet_list(notes),
    )


def tokenizer_and_template(config: Config, adapter_folder: Path) -> dict[str, str | Path]:
    """The tokenizer in the adapter's folder, and the chat template that the sweep file set, if any."""
    files: dict[str, str | Path] = dict(tokenizer_files(adapter_folder))
    text = chat_template_text(config)
    if text is not None:
        files[TEMPLATE] = text
    return files
