"""What Axolotl and LLaMA-Factory, which train from a settings file with their own data code, share."""

from __future__ import annotations

from typing import Any

from results.export.config_values import Config, revision_notes, section
from results.export.target import FactExport, as_settings, not_expressed, written_in
from results.export.training_script import OTHER_MODEL_CLASS
from results.export.unsupported_forms import unknown_forms_notes

NO_QUANTIZATION = "The sweep recorded no quantization; the base is loaded in NF4 as QLoRA does."
NO_FORMAT = "The sweep recorded no data format; records with prompt and completion are read."
NO_MASK = "The sweep did not record whether the prompt carries loss; it is left out here."


def facts_of_both(program: str, config: Config) -> dict[str, FactExport]:
    """Facts that both express alike, or both do not."""
    lora, limit = section(config, "lora"), section(config, "data").get("max_train_examples")
    return {
        "trust_remote_code": as_settings(trust_remote_code=True),
        "model_class": not_expressed(OTHER_MODEL_CLASS),
        "lora_alpha": _whole_alpha(program, lora["lora_alpha"]),
        "lora_dropout": as_settings(lora_dropout=lora.get("lora_dropout") or 0.0),
        "max_train_examples": not_expressed(
            f"The sweep drew {limit} training records by content hash; {program} takes all."
        ),
        "held_out": not_expressed(
            "The config names no evaluation data, so the records that the sweep held out are trained on too."
        ),
        "study": written_in("head of the file"),
        "versions": written_in("head of the file"),
    }


def evaluation_lost(program: str, config: Config) -> str:
    """That the program evaluates on other records of the evaluation data than the trials; "" if it does not.

    Neither program draws evaluation records by their content as the sweep does: they are written for them
    (`written_records.py`), unless they cannot be read any more.
    """
    data = section(config, "data")
    if data.get("eval_in_train"):
        return f"The sweep held its evaluation records out of the training records; {program} trains on both."
    used, records, most = (
        data.get(name) for name in ("num_eval_used", "num_eval_records", "max_eval_examples")
    )
    if used is None or records is None:
        if most is None:
            return ""
        return (
            f"The sweep evaluated on at most {most} of the evaluation records, drawn by content hash; "
            f"{program} evaluates on all, so compare its loss with the sweep's only where there are no more."
        )
    if used == records:
        return ""
    return (
        f"The sweep evaluated on {used} of {records} evaluation records, drawn by content hash without "
        f"copies; {program} evaluates on all, so its loss is not to be compared with the sweep's."
    )


def _whole_alpha(program: str, alpha: Any) -> FactExport:
    lost = f"Alpha is a whole number to {program}; the sweep found {alpha}."
    whole = float(alpha).is_integer()
    return as_settings(lora_alpha=max(1, round(float(alpha))), lost="" if whole else lost)


def notes_of_both(program: str, package: str, config: Config) -> list[str]:
    """`package` is the package with the version that the file is written for."""
    return [
        f"Written from the published keys of {package}; it needs a GPU and was not run by the sweep.",
        f"Data order, dropout masks and LoRA's first weights are {program}'s own, so a run ends near the "
        "sweep's loss, not at it.",
        f"{program} averages the evaluation loss over batches, the sweep over tokens: on the same weights "
        "the two differ a little.",
        *revision_notes(config),
        *unknown_forms_notes(config),
    ]
