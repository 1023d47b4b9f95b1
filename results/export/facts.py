"""All facts of a best config that decide how the model trains: each target says each of them, or why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import ExportError

Config = Mapping[str, Any]
"""A best config: sections of plain data."""


def section(config: Config, name: str) -> Mapping[str, Any]:
    """A section of the best config; absent sections read as empty."""
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def trains_embeddings(config: Config) -> bool:
    """Whether anything of the embeddings or the output layer is trained."""
    lora = section(config, "lora")
    return bool(lora.get("modules_to_save") or lora.get("trainable_token_indices"))


def dtype_name(config: Config) -> str:
    """The sweep's compute dtype as torch spells it; raises ExportError when it is unknown."""
    name = str(section(config, "quantization").get("bnb_4bit_compute_dtype")).removeprefix("torch.")
    if name not in ("bfloat16", "float16", "float32"):
        raise ExportError(f"the compute dtype must be bfloat16, float16 or float32; the config says {name!r}")
    return name


CAUSAL_LM = "AutoModelForCausalLM"


def base_class(config: Config) -> str:
    """The automatic class of transformers that loads the base; another one for models that see as well."""
    return str(section(config, "model").get("class") or CAUSAL_LM)


OTHER_CLASS = (
    "The sweep trained the language model of a base that sees as well; how this program loads it, and "
    "whether it trains more of it, was not compared."
)

INT8_ROUNDS = (
    "The sweep computed with the weights that the int8 base stands for; LLM.int8() rounds activations to 8 "
    "bits as well, so losses differ a little."
)


def quantization_arguments(config: Config) -> dict[str, Any]:
    """Arguments of BitsAndBytesConfig, but for the compute dtype; empty for a base that was not quantised.

    QLoRA's NF4 where the sweep recorded nothing.
    """
    known = section(config, "quantization")
    skipped = {"llm_int8_skip_modules": known["llm_int8_skip_modules"]} if skips_modules(config) else {}
    if known.get("load_in_8bit"):
        return {"load_in_8bit": True, **skipped}
    if known.get("load_in_4bit") is False:
        return {}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": known.get("bnb_4bit_quant_type") or "nf4",
        "bnb_4bit_use_double_quant": known.get("bnb_4bit_use_double_quant") is not False,
        **skipped,
    }


def skips_modules(config: Config) -> bool:
    """Whether the base keeps some linear layers unquantised by its own word."""
    return section(config, "quantization").get("llm_int8_skip_modules") is not None


def base_words(config: Config) -> str:
    """What kind of base the adapter was trained on, after "the"."""
    arguments = quantization_arguments(config)
    if not arguments:
        return "unquantised base"
    return "int8 base" if "load_in_8bit" in arguments else f"{arguments['bnb_4bit_quant_type'].upper()} base"


def template_text(config: Config) -> str | None:
    """The chat template that the sweep file set, as Jinja text; None where it set none, or the best config
    of an earlier version names a file."""
    template = section(config, "data").get("chat_template")
    return str(template) if template and ("{{" in template or "{%" in template) else None


def revision_notes(config: Config) -> list[str]:
    """That a base from a hub has no fixed revision; a folder of one's own has none to fix."""
    model = section(config, "model")
    if model.get("revision") or Path(str(model.get("name") or "")).is_absolute():
        return []
    return ["The sweep pinned no revision of the base model: with another one the losses differ."]


FORMS: Mapping[str, str] = {
    "json_text": "turns, tools or history as JSON text",
    "parts": "content in parts",
    "tools": "tools",
    "tool_turns": "calls and answers of tools",
    "reasoning": "reasoning in a field of its own",
    "weight_0": "turns of weight 0",
    "assistant_first": "conversations that begin with the assistant",
    "messages": "prompts or completions as turns",
    "history": "a history before the instruction",
    "input": "an input below the instruction",
    "empty_fields": "empty lists in turns",
    "turns_key": "turns under another key than the usual one",
    "roles": "roles by other names",
    "marked": "turns that the chat template marks",
    "per_turn": "one example per assistant's turn",
    "dated": "the date in the chat template",
    "other_stop": "turns that end by another token than the tokenizer's end token",
    "copies_in_eval": "training records that the evaluation set holds",
}
"""Forms in which records come and are trained, by the name in the study -> for a reader."""


def form_fact(form: str) -> str:
    """Name of the fact that the data has this form."""
    return f"form_{form}"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that a sweep decided or found."""

    name: str
    phrase: str
    """What it is, for a reader."""
    places: tuple[str, ...]
    """Where it stands in the best config, as section.key."""
    at_issue: Callable[[Config], bool] = lambda config: True
    """Whether this config has it at all; frozen embeddings have no rate."""


def _given(place: str) -> Callable[[Config], bool]:
    name, _, key = place.partition(".")
    return lambda config: section(config, name).get(key) is not None


def _truthy(place: str) -> Callable[[Config], bool]:
    name, _, key = place.partition(".")
    return lambda config: bool(section(config, name).get(key))


def _training(name: str, phrase: str) -> Fact:
    place = f"training.{name}"
    return Fact(name=name, phrase=phrase, places=(place,), at_issue=_given(place))


def _form(name: str, phrase: str) -> Fact:
    return Fact(
        name=form_fact(name),
        phrase=phrase,
        places=("data.forms",),
        at_issue=lambda config: name in (section(config, "data").get("forms") or ()),
    )


FACTS: tuple[Fact, ...] = (
    Fact(name="model", phrase="the base model", places=("model.name",)),
    Fact(
        name="revision",
        phrase="the revision of the base",
        places=("model.revision",),
        at_issue=_given("model.revision"),
    ),
    Fact(
        name="trust_remote_code",
        phrase="code that comes with the model is run",
        places=("model.trust_remote_code",),
        # The user's own word in the sweep file, never a default.
        at_issue=lambda config: section(config, "model").get("trust_remote_code") is True,
    ),
    Fact(
        name="quantization",
        phrase="the quantization of the base",
        places=(
            "quantization.load_in_4bit",
            "quantization.bnb_4bit_quant_type",
            "quantization.bnb_4bit_use_double_quant",
            "quantization.load_in_8bit",
            "quantization.llm_int8_skip_modules",
        ),
    ),
    Fact(
        name="model_class",
        phrase="the class of transformers that loads the base",
        places=("model.class",),
        at_issue=lambda config: base_class(config) != CAUSAL_LM,
    ),
    Fact(name="compute_dtype", phrase="the compute dtype", places=("quantization.bnb_4bit_compute_dtype",)),
    Fact(name="lora_r", phrase="the rank", places=("lora.lora_r",)),
    Fact(name="lora_alpha", phrase="alpha", places=("lora.lora_alpha",)),
    Fact(name="use_rslora", phrase="the scaling convention of alpha", places=("lora.use_rslora",)),
    Fact(name="lora_dropout", phrase="dropout", places=("lora.lora_dropout",)),
    Fact(name="target_modules", phrase="the layers with an adapter", places=("lora.target_modules",)),
    Fact(
        name="modules_to_save",
        phrase="embeddings that are trained in full",
        places=("lora.modules_to_save",),
        at_issue=_truthy("lora.modules_to_save"),
    ),
    Fact(
        name="trainable_token_indices",
        phrase="tokens whose rows are trained",
        places=("lora.trainable_token_indices",),
        at_issue=_truthy("lora.trainable_token_indices"),
    ),
    Fact(
        name="trained_embeddings_dtype",
        phrase="the dtype in which trained embeddings are kept",
        places=("training.trained_embeddings_dtype",),
        at_issue=trains_embeddings,
    ),
    Fact(name="learning_rate", phrase="the learning rate", places=("training.learning_rate",)),
    Fact(
        name="embedding_learning_rate",
        phrase="the embedding learning rate",
        places=("training.embedding_learning_rate",),
        at_issue=_given("training.embedding_learning_rate"),
    ),
    Fact(
        name="lr_scheduler",
        phrase="the schedule",
        places=("training.lr_scheduler_type", "training.lr_scheduler_kwargs"),
    ),
    Fact(name="warmup_steps", phrase="warmup, in whole steps", places=("training.warmup_steps",)),
    Fact(name="max_steps", phrase="the steps", places=("training.max_steps",)),
    Fact(
        name="batch_size",
        phrase="examples per step: per device x accumulation x devices",
        places=(
            "training.per_device_train_batch_size",
            "training.gradient_accumulation_steps",
            "training.effective_batch_size",
        ),
    ),
    _training("optim", "the optimizer"),
    Fact(
        name="embedding_optimizer_bits",
        phrase="8-bit moments of trained embeddings",
        places=("training.embedding_optimizer_bits",),
        at_issue=lambda config: (
            trains_embeddings(config) and section(config, "training").get("embedding_optimizer_bits") == 8
        ),
    ),
    _training("weight_decay", "weight decay of everything that is trained"),
    _training("max_grad_norm", "clipping"),
    _training("adam_beta1", "Adam's first beta"),
    _training("adam_beta2", "Adam's second beta"),
    _training("adam_epsilon", "Adam's epsilon"),
    _training("seed", "the seed"),
    Fact(name="train_data", phrase="the training records", places=("data.train", "data.train_split")),
    Fact(
        name="held_out",
        phrase="the evaluation records",
        places=(
            "data.eval",
            "data.eval_split",
            "data.eval_fraction",
            "data.max_eval_examples",
            "data.seed",
        ),
    ),
    Fact(name="data_format", phrase="the format of the records", places=("data.format",)),
    Fact(name="max_length", phrase="tokens per example", places=("data.max_length",)),
    Fact(name="completion_only", phrase="whether the prompt has loss", places=("data.completion_only",)),
    Fact(
        name="chat_template",
        phrase="the chat template",
        places=("data.chat_template",),
        at_issue=_truthy("data.chat_template"),
    ),
    Fact(
        name="max_train_examples",
        phrase="how many of the training records",
        places=("data.max_train_examples", "data.seed"),
        at_issue=_given("data.max_train_examples"),
    ),
    *(_form(name, phrase) for name, phrase in FORMS.items()),
    Fact(
        name="study",
        phrase="which trial of which study",
        places=("sweep.name", "sweep.study_hash", "sweep.trial"),
    ),
    Fact(name="versions", phrase="the versions of the measurement", places=()),
)
"""In the order in which they are written."""


def facts_of(config: Config) -> list[Fact]:
    """The facts that this config has."""
    return [fact for fact in FACTS if fact.at_issue(config)]
