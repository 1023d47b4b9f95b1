"""The adapter as peft loads it, with a README and the config that it was trained with."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from packaging.version import Version

from files_and_text.trial_paths import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from files_and_text.yaml_lines import dump_yaml
from results.adapter_files import check_adapter_files, check_adapter_loads
from results.errors import ExportError
from results.export.config_values import (
    Config,
    auto_class,
    dtype_name,
    quantization_arguments,
    revision_notes,
    section,
)
from results.export.generated_text import (
    base_loss_text,
    best_loss_text,
    merged_loss_text,
    one_line,
    python_literal,
)
from results.export.merge_script import MERGE_SCRIPT, merge_script, other_base_warning, tokenizer_and_template
from results.export.target import ExportDraft, Target
from results.export.targets.yaml import all_in_config_file
from results.tokenizer_files import TEMPLATE

_README = """\
---
library_name: peft
---

# Adapter of sweep {name}, trial {trial}

Evaluation loss {eval_loss} nats per token; untouched base {base_loss}; measured on the base below{merged}.
Load it on the same base, from this folder:

```python
{code}
```

`config.yaml` holds all hyperparameters, the data they were measured on and the versions. The adapter itself
holds weights and LoRA settings only. `python merge.py --output FOLDER` writes the base with the adapter
merged into it, for programs that take no adapter. {notes}"""

_CODE = """\
import torch
from peft import PeftModel
from transformers import {model_class}, AutoTokenizer{import_quantization}

model_name = {model}
base = {model_class}.from_pretrained(
    model_name,
    revision={revision},
    dtype=torch.{dtype},
    device_map="auto",{trust}{quantization}
)
model = PeftModel.from_pretrained(base, ".")
{tokenizer}"""

_QUANTIZATION = """
    quantization_config=BitsAndBytesConfig(
{arguments}
        bnb_4bit_compute_dtype=torch.{dtype},
    ),"""


def loading_code(config: Config, files: Collection[str] = ()) -> str:
    """Python source that loads the base as the sweep did, and the adapter in the current folder.

    `files`: names of the files beside it.
    """
    model, dtype = section(config, "model"), dtype_name(config)
    is_recorded = section(config, "quantization").get("load_in_4bit") is not None
    arguments = quantization_arguments(config) if is_recorded else {}
    trusted = model.get("trust_remote_code") is True  # only if the user's sweep file says so
    trust_too = ", trust_remote_code=True" if trusted else ""
    if "tokenizer_config.json" in files:
        tokenizer = [f'tokenizer = AutoTokenizer.from_pretrained("."{trust_too})']
    else:
        revision = python_literal(model.get("revision"))
        tokenizer = [f"tokenizer = AutoTokenizer.from_pretrained(model_name, revision={revision}{trust_too})"]
        if TEMPLATE in files:
            tokenizer.append(f'tokenizer.chat_template = open("{TEMPLATE}", encoding="utf-8").read()')
    return _CODE.format(
        tokenizer="\n".join(tokenizer),
        model=python_literal(model["name"]),
        model_class=auto_class(config),
        revision=python_literal(model.get("revision")),
        dtype=dtype,
        trust="\n    trust_remote_code=True," if trusted else "",
        import_quantization=", BitsAndBytesConfig" if arguments else "",
        quantization=_QUANTIZATION.format(
            arguments="\n".join(
                f"        {name}={python_literal(value)}," for name, value in arguments.items()
            ),
            dtype=dtype,
        )
        if arguments
        else "",
    )


def _build(config: Config, adapter_folder: Path | None, version: Version | None) -> ExportDraft:
    if adapter_folder is None:
        raise ExportError("the peft target needs the folder of the trained adapter")
    model, sweep = section(config, "model"), section(config, "sweep")
    if not model.get("name"):
        raise ExportError("the peft target needs the base model's name, and the config has none")
    adapter_config = check_adapter_files(adapter_folder)
    # peft finds the base by these two; the trial may have used a copy on another machine.
    adapter_config |= {"base_model_name_or_path": model["name"], "revision": model.get("revision")}
    notes = revision_notes(config)
    if adapter_config.get("modules_to_save"):
        notes.append(
            "Trained embeddings are stored in float32; peft keeps them in the dtype of the base it is "
            "loaded on."
        )
    if adapter_config.get("trainable_token_indices"):
        notes.append(
            "The rows of trained tokens are stored in float32 and used in the dtype of the base. They belong "
            "to ids: load the adapter on the base that has the same tokens added."
        )
    served = tokenizer_and_template(config, adapter_folder)
    if not served:
        notes.append("No tokenizer lies with the adapter: take the base's own.")
    readme = _README.format(
        name=one_line(sweep.get("name")),
        trial=sweep.get("trial"),
        eval_loss=best_loss_text(config),
        base_loss=base_loss_text(config),
        merged=merged_loss_text(config),
        code=loading_code(config, served),
        notes="".join(f"\n{note}\n" for note in notes),
    )
    return ExportDraft(
        files={
            ADAPTER_CONFIG: json.dumps(adapter_config, indent=2, sort_keys=True) + "\n",
            ADAPTER_WEIGHTS: adapter_folder / ADAPTER_WEIGHTS,
            "README.md": readme,
            MERGE_SCRIPT: merge_script(config, [other_base_warning(config)], notes),
            "config.yaml": dump_yaml(dict(config)),
            **served,
        },
        facts=all_in_config_file(),
        notes=notes,
        check=check_adapter_loads,
    )


TARGET = Target(name="peft", summary="adapter for PeftModel.from_pretrained, with its config", build=_build)
