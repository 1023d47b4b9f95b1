"""What goes along with an adapter: its tokenizer, and a script that merges it into its base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from results.export.facts import Config, base_class, base_words, dtype_name, section, template_text
from results.export.python_text import listed, literal, provenance, wrapped
from results.export.template import render_template
from results.tokenizer_files import TEMPLATE, tokenizer_files

MERGE = "merge.py"


def another_base(config: Config) -> str:
    """That the merged model, or one quantised anew, is not the base that the adapter was trained on."""
    return (
        f"The adapter was trained and measured on the {base_words(config)}; another base is rounded in "
        "another way, so its loss is another one. Measure it again."
    )


def merge_script(config: Config, lossy: Sequence[str], notes: Sequence[str]) -> str:
    """Python that writes the merged model, in 16 bits (in 32 where the sweep computed in them)."""
    model = section(config, "model")
    return render_template(
        "merge.py.jinja",
        provenance="\n".join(wrapped(line) for line in provenance(config)),
        model=literal(model["name"]),
        revision=literal(model.get("revision")),
        dtype="float32" if dtype_name(config) == "float32" else "bfloat16",
        trusted=model.get("trust_remote_code") is True,
        model_class=base_class(config),
        template=TEMPLATE,
        lossy=listed(lossy),
        notes=listed(notes),
    )


def served_files(config: Config, adapter_folder: Path) -> dict[str, str | Path]:
    """The tokenizer that lies with the adapter, and the template that the sweep file set, if any."""
    files: dict[str, str | Path] = dict(tokenizer_files(adapter_folder))
    text = template_text(config)
    if text is not None:
        files[TEMPLATE] = text
    return files
