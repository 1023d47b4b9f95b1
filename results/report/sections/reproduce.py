"""How to reproduce the sweep: commands, sweep file, versions, seeds and hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from files_and_text.yaml_lines import load_yaml
from results.report.blocks import Block, Code, Fold, Table
from results.report.facts import ReportFacts


def reproduce_fold(facts: ReportFacts) -> Fold:
    blocks: list[Block] = [Code(label="Commands", text=_commands(facts))]
    if facts.sweep_file:
        blocks.append(Code(label="sweep.yaml, every value written out", text=facts.sweep_file))
    context = {name: value for name, value in facts.sweep.context.items() if name != "data_account"}
    hashes = _fingerprints(facts)
    versions = [(name, str(version)) for name, version in sorted(facts.sweep.versions.items())]
    same = "Identity: what must be equal to go on with this study"
    blocks += [
        Table(caption="Fingerprints and seeds", header=("what", "value"), rows=hashes, stacked=True),
        Table(caption="Versions that the sweep ran with", header=("package", "version"), rows=versions),
        Table(
            caption="How the workers computed",
            header=("device", "path", "why, and by what"),
            rows=[
                (str(path["device"]), str(path["path"]), "; ".join([*path["details"], *path["notes"]]))
                for path in facts.sweep.compute_paths
            ],
        ),
        _settings_table("What holds for every trial", "setting", context),
        _settings_table(same, "field", facts.sweep.identity),
    ]
    kept = [b for b in blocks if not isinstance(b, Table) or b.rows]
    return Fold(summary="How to reproduce", blocks=kept)


def _settings_table(caption: str, name: str, values: Mapping[str, Any]) -> Table:
    return Table(caption=caption, header=(name, "value"), rows=sorted(_flat(values)), folded=True)


def _commands(facts: ReportFacts) -> str:
    lines = [
        "sweeps run sweep.yaml       # the file below; the same seeds draw the same trials",
        f"sweeps verdict {facts.answer.run.run_folder}",
        f"sweeps report {facts.answer.run.run_folder}",
    ]
    return "\n".join(lines)


def _fingerprints(facts: ReportFacts) -> list[tuple[str, str]]:
    identity, seeds = facts.sweep.identity, _seeds(facts.sweep_file)
    found = {
        "study": facts.sweep.name,
        "study hash (over space and finished trials)": facts.study_hash,
        "space": identity.get("space"),
        "training data": identity.get("train_data"),
        "evaluation data": identity.get("eval_data"),
        "seed of the training": facts.sweep.context.get("seed", seeds.get("training")),
        "seed of the search": seeds.get("search"),
        "seed of the data": seeds.get("data"),
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def _seeds(sweep_file: str) -> dict[str, Any]:
    content = load_yaml(sweep_file)[0] if sweep_file else None
    sections = content if isinstance(content, Mapping) else {}
    return {
        name: section["seed"]
        for name, section in sections.items()
        if isinstance(section, Mapping) and section.get("seed") is not None
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings with dotted names; None and empty lists are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            if value:
                yield f"{prefix}{name}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{prefix}{name}", str(value)
