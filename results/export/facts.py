"""All facts of a best config that decide how the model trains; a target expresses each or says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from results.export.config_values import CAUSAL_LM, Config, auto_class, section, trains_embeddings

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
"""Forms of records and how they are trained: name in the study -> description."""


def form_fact_name(form: str) -> str:
    """Name of the fact that the data has this form."""
    return f"form_{form}"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that a sweep decided or found."""

    name: str
    description: str
    keys: tuple[str, ...]
    """Where it is in the best config, as section.key."""
    applies: Callable[[Config], bool]
    """Whether this config has it: frozen embeddings have no learning rate."""


def _always(config: Config) -> bool:
    return True


def _value(config: Config, key: str) -> object:
    name, _, inner = key.partition(".")
    return section(config, name).get(inner)


def _fact(name: str, description: str, *keys: str, applies: Callable[[Config], bool] = _always) -> Fact:
    return Fact(name=name, description=description, keys=keys, applies=applies)


def _if_set(name: str, description: str, *keys: str) -> Fact:
    """A fact of the configs whose first key is not None."""
    return _fact(name, description, *keys, applies=lambda config: _value(config, keys[0]) is not None)


def _if_any(name: str, description: str, key: str) -> Fact:
    """A fact of the configs whose key is not empty."""
    return _fact(name, description, key, applies=lambda config: bool(_value(config, key)))


def _form(name: str, description: str) -> Fact:
    def applies(config: Config) -> bool:
        return name in (section(config, "data").get("forms") or ())

    return _fact(form_fact_name(name), description, "data.forms", applies=applies)


FACTS: tuple[Fact, ...] = (
    _fact("model", "the base model", "model.name"),
    _if_set("revision", "the revision of the base", "model.revision"),
    _fact(
        "trust_remote_code",
        "code that comes with the model is run",
        "model.trust_remote_code",
        # Only where the user's sweep file says so.
        applies=lambda config: section(config, "model").get("trust_remote_code") is True,
    ),
    _fact(
        "quantization",
        "the quantization of the base",
        "quantization.load_in_4bit",
        "quantization.bnb_4bit_quant_type",
        "quantization.bnb_4bit_use_double_quant",
        "quantization.load_in_8bit",
        "quantization.llm_int8_skip_modules",
    ),
    _fact(
        "model_class",
        "the class of transformers that loads the base",
        "model.class",
        applies=lambda config: auto_class(config) != CAUSAL_LM,
    ),
    _fact("compute_dtype", "the compute dtype", "quantization.bnb_4bit_compute_dtype"),
    _fact("lora_r", "the rank", "lora.lora_r"),
    _fact("lora_alpha", "alpha", "lora.lora_alpha"),
    _fact("use_rslora", "the scaling convention of alpha", "lora.use_rslora"),
    _fact("lora_dropout", "dropout", "lora.lora_dropout"),
    _fact("target_modules", "the layers with an adapter", "lora.target_modules"),
    _if_any("modules_to_save", "embeddings that are trained in full", "lora.modules_to_save"),
    _if_any("trainable_token_indices", "tokens whose rows are trained", "lora.trainable_token_indices"),
    _fact(
        "trained_embeddings_dtype",
        "the dtype in which trained embeddings are kept",
        "training.trained_embeddings_dtype",
        applies=trains_embeddings,
    ),
    _fact("learning_rate", "the learning rate", "training.learning_rate"),
    _if_set("embedding_learning_rate", "the embedding learning rate", "training.embedding_learning_rate"),
    _fact("lr_scheduler", "the schedule", "training.lr_scheduler_type", "training.lr_scheduler_kwargs"),
    _fact("warmup_steps", "warmup, in whole steps", "training.warmup_steps"),
    _fact("max_steps", "the steps", "training.max_steps"),
    _fact(
        "batch_size",
        "examples per step: per device x accumulation x devices",
        "training.per_device_train_batch_size",
        "training.gradient_accumulation_steps",
        "training.effective_batch_size",
    ),
    _if_set("optim", "the optimizer", "training.optim"),
    _fact(
        "embedding_optimizer_bits",
        "8-bit moments of trained embeddings",
        "training.embedding_optimizer_bits",
        applies=lambda config: (
            trains_embeddings(config) and section(config, "training").get("embedding_optimizer_bits") == 8
        ),
    ),
    _if_set("weight_decay", "weight decay of everything that is trained", "training.weight_decay"),
    _if_set("max_grad_norm", "clipping", "training.max_grad_norm"),
    _if_set("adam_beta1", "Adam's first beta", "training.adam_beta1"),
    _if_set("adam_beta2", "Adam's second beta", "training.adam_beta2"),
    _if_set("adam_epsilon", "Adam's epsilon", "training.adam_epsilon"),
    _if_set("seed", "the seed", "training.seed"),
    _fact("train_data", "the training records", "data.train", "data.train_split"),
    _fact(
        "held_out",
        "the evaluation records",
        *("data.eval", "data.eval_split", "data.eval_fraction", "data.max_eval_examples", "data.seed"),
        *("data.num_eval_records", "data.num_eval_used"),
    ),
    _fact("data_format", "the format of the records", "data.format"),
    _fact("max_length", "tokens per example", "data.max_length"),
    _fact("completion_only", "whether the prompt has loss", "data.completion_only"),
    _if_any("chat_template", "the chat template", "data.chat_template"),
    _if_set("max_train_examples", "how many of the training records", "data.max_train_examples", "data.seed"),
    *(_form(name, description) for name, description in FORMS.items()),
    _fact("study", "which trial of which study", "sweep.name", "sweep.study_hash", "sweep.trial"),
    _fact("versions", "the versions of the measurement"),
)
"""In the order in which they are written."""


def facts_of(config: Config) -> list[Fact]:
    """The facts that this config has."""
    return [fact for fact in FACTS if fact.applies(config)]
