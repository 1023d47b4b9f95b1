"""The script that merges an adapter into its base, for programs that take no adapter."""

from __future__ import annotations

from collections.abc import Sequence

from results.export.facts import Config, base_words, dtype_name, section
from results.export.template import render_template
from results.export.text import listed, literal, provenance, wrapped

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
        lossy=listed(lossy),
        notes=listed(notes),
    )
