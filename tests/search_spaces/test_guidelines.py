"""The built-in rows: the expected values were copied from the documents."""

from __future__ import annotations

import pytest

from search_spaces import GuidelineRow, Guidelines, disagreements, load_guidelines

DOC1 = "Heuristic: Learning Rate Guidelines (2025-12-15)"
DOC2 = "Heuristic: Embedding_Learning_Rate_Tip (2026-01-09)"
DOC3 = "Training & optimization: Learning Rate (glossary entry)"

# (id, parameter, low, high, when as in the YAML)
NUMBERS = [
    # Document 1, "Standard QLoRA Learning Rates"
    (DOC1, "scenario.general", "learning_rate", 2e-4, 2e-4, {"scenario": "general", "method": "qlora"}),
    (
        DOC1,
        "scenario.instruction",
        "learning_rate",
        1e-4,
        2e-4,
        {"scenario": "instruction", "method": "qlora"},
    ),
    (DOC1, "scenario.complex", "learning_rate", 1e-4, 1e-4, {"scenario": "complex", "method": "qlora"}),
    (
        DOC1,
        "scenario.short",
        "learning_rate",
        5e-5,
        5e-5,
        {"scenario": "short", "method": "qlora", "max_steps": {"high": 99}},
    ),
    (
        DOC1,
        "scenario.long",
        "learning_rate",
        1e-4,
        1e-4,
        {"scenario": "long", "method": "qlora", "max_steps": {"low": 1001}},
    ),
    # "Model Size Scaling"
    (
        DOC1,
        "size.1-3b",
        "learning_rate",
        2e-4,
        3e-4,
        {"method": "qlora", "model_size_billions": {"low": 1, "high": 3}},
    ),
    (
        DOC1,
        "size.7-8b",
        "learning_rate",
        2e-4,
        2e-4,
        {"method": "qlora", "model_size_billions": {"low": 7, "high": 8}},
    ),
    (
        DOC1,
        "size.13b",
        "learning_rate",
        1e-4,
        2e-4,
        {"method": "qlora", "model_size_billions": {"low": 13, "high": 13}},
    ),
    (
        DOC1,
        "size.70b",
        "learning_rate",
        5e-5,
        1e-4,
        {"method": "qlora", "model_size_billions": {"low": 70, "high": 70}},
    ),
    (
        DOC1,
        "batch.1-3b",
        "per_device_train_batch_size",
        8,
        16,
        {"model_size_billions": {"low": 1, "high": 3}},
    ),
    (DOC1, "batch.7-8b", "per_device_train_batch_size", 4, 8, {"model_size_billions": {"low": 7, "high": 8}}),
    (
        DOC1,
        "batch.13b",
        "per_device_train_batch_size",
        2,
        4,
        {"model_size_billions": {"low": 13, "high": 13}},
    ),
    (
        DOC1,
        "batch.70b",
        "per_device_train_batch_size",
        1,
        2,
        {"model_size_billions": {"low": 70, "high": 70}},
    ),
    # "Warmup Guidelines", and the ratio named for long runs
    (DOC1, "warmup.ratio", "warmup_ratio", 0.03, 0.1, {}),
    (DOC1, "warmup.share_of_steps", "warmup_ratio", 0.05, 0.10, {}),
    (DOC1, "warmup.min_steps", "warmup_steps", 10, 100, {}),
    (DOC1, "warmup.long_runs", "warmup_ratio", 0.03, 0.03, {"max_steps": {"low": 2001}}),
    # "Embedding Learning Rate" and document 2
    (
        DOC1,
        "embedding.default",
        "embedding_learning_rate",
        5e-5,
        5e-5,
        {"method": "qlora", "train_embeddings": True},
    ),
    (
        DOC1,
        "embedding.times_lower",
        "embedding_lr_ratio",
        1 / 20,
        1 / 10,
        {"method": "qlora", "train_embeddings": True},
    ),
    (
        DOC2,
        "embedding.recommended",
        "embedding_learning_rate",
        5e-5,
        5e-5,
        {"method": "qlora", "train_embeddings": True},
    ),
    (
        DOC2,
        "embedding.ratio",
        "embedding_lr_ratio",
        0.25,
        0.25,
        {"method": "qlora", "train_embeddings": True},
    ),
    (DOC2, "embedding.main_lr", "learning_rate", 2e-4, 2e-4, {"method": "qlora", "train_embeddings": True}),
    (DOC2, "embedding.weight_decay", "weight_decay", 0.0, 0.0, {"method": "qlora"}),
    (
        DOC2,
        "boundary.same_rate",
        "embedding_lr_ratio",
        1.0,
        1.0,
        {"method": "qlora", "train_embeddings": True},
    ),
    # Document 1, "Why 2e-4 as Default"; document 3
    (DOC1, "method.qlora", "learning_rate", 2e-4, 2e-4, {"method": "qlora"}),
    (DOC1, "method.full", "learning_rate", 1e-5, 5e-5, {"method": "full"}),
    (
        DOC3,
        "method.full_7b",
        "learning_rate",
        1e-5,
        1e-5,
        {"method": "full", "model_size_billions": {"low": 7, "high": 7}},
    ),
    (DOC3, "method.lora_start", "learning_rate", 2e-4, 2e-4, {"method": "qlora"}),
    (
        DOC3,
        "method.llama_8b",
        "learning_rate",
        2e-4,
        2e-4,
        {"method": "qlora", "model_size_billions": {"low": 8, "high": 8}},
    ),
    (DOC3, "method.unsloth", "learning_rate", 2e-4, 2e-4, {"method": "qlora"}),
    (DOC3, "method.trainer_example", "learning_rate", 2e-4, 2e-4, {}),
    (DOC3, "method.llama_train", "learning_rate", 1e-4, 1e-4, {}),
    (DOC3, "method.operators", "learning_rate", 5e-5, 1e-4, {}),
    (DOC3, "method.common_range", "learning_rate", 1e-5, 1e-3, {}),
    (
        DOC3,
        "boundary.too_high",
        "learning_rate",
        1e-3,
        1e-3,
        {"method": "qlora", "model_size_billions": {"low": 8, "high": 8}},
    ),
    (
        DOC3,
        "boundary.too_low",
        "learning_rate",
        1e-6,
        1e-6,
        {"method": "qlora", "model_size_billions": {"low": 8, "high": 8}, "max_steps": {"high": 1000}},
    ),
]

SCHEDULES = [
    (DOC1, "scheduler.short", ("linear", "constant"), {"max_steps": {"high": 499}}),
    (DOC1, "scheduler.medium", ("cosine",), {"max_steps": {"low": 500, "high": 2000}}),
    (DOC1, "scheduler.long", ("cosine",), {"max_steps": {"low": 2001}}),
    (
        DOC1,
        "scheduler.long_training",
        ("cosine",),
        {"scenario": "long", "method": "qlora", "max_steps": {"low": 1001}},
    ),
    (DOC3, "scheduler.lora_start", ("cosine",), {"method": "qlora"}),
    (
        DOC3,
        "scheduler.llama_8b",
        ("cosine",),
        {"method": "qlora", "model_size_billions": {"low": 8, "high": 8}},
    ),
    (DOC3, "scheduler.trainer_example", ("cosine",), {}),
    (DOC3, "scheduler.decay", ("cosine", "linear"), {}),
    (DOC3, "scheduler.plateau", (), {}),
]

SIGNS = [
    (DOC1, "stability.spike", "too_high", "Loss spikes"),
    (DOC1, "stability.nan", "too_high", "NaN values"),
    (DOC1, "stability.repetitive", "too_high", "Outputs become repetitive or nonsensical"),
    (DOC1, "stability.eval_rises", "too_high", "Validation loss increases while training loss decreases"),
    (DOC1, "stability.slow", "too_low", "Loss decreases very slowly"),
    (DOC1, "stability.unchanged", "too_low", "Model barely changes from base"),
    (DOC1, "stability.many_epochs", "too_low", "Many epochs needed for improvement"),
    (DOC2, "stability.embedding_spike", "too_high", "Loss spikes"),
    (DOC2, "stability.embedding_nan", "too_high", "NaN values"),
    (DOC2, "stability.same_rate_instability", "too_high", "Loss instability"),
    (DOC2, "stability.same_rate_forgetting", "too_high", "Catastrophic forgetting of language understanding"),
    (DOC2, "stability.same_rate_drift", "too_high", "Embedding drift that degrades generation quality"),
    (DOC3, "stability.diverges", "too_high", "the loss may diverge"),
    (DOC3, "stability.stalls", "too_low", "training stalls"),
]

RULES = [
    (DOC1, "embedding.when_beside_lora", "Fine-tuning embeddings alongside LoRA adapters"),
    (DOC2, "embedding.when_unfrozen", "Training with unfrozen embeddings"),
    (DOC2, "embedding.when_new_tokens", "Adding new tokens"),
    (DOC2, "embedding.when_unstable", "Observing training instability"),
    (DOC2, "embedding.trade_off", "lower embedding LR"),
    (DOC2, "embedding.parameters", "parameters named modules_to_save.default.weight"),
    (DOC3, "method.depends_on", "any"),
]

CONDITIONS = {
    "scenario.general": "General Fine-tuning",
    "scenario.instruction": "Instruction Tuning",
    "scenario.complex": "Complex Tasks (Math/Code)",
    "scenario.short": "Short Training (<100 steps)",
    "scenario.long": "Long Training (>1000 steps)",
    "size.1-3b": "1-3B",
    "size.7-8b": "7-8B",
    "size.13b": "13B",
    "size.70b": "70B",
    "scheduler.short": "Short runs (<500 steps)",
    "scheduler.medium": "Medium runs (500-2000 steps)",
    "scheduler.long": "Long runs (>2000 steps)",
}


@pytest.fixture(scope="module")
def guidelines() -> Guidelines:
    return load_guidelines()


@pytest.mark.parametrize(("document", "row_id", "parameter", "low", "high", "when"), NUMBERS)
def test_numbers(
    guidelines: Guidelines, document: str, row_id: str, parameter: str, low: float, high: float, when: object
) -> None:
    row = guidelines[row_id]
    assert (row.source.document, row.parameter, row.low, row.high) == (document, parameter, low, high)
    assert row.when.to_dict() == when
    assert row.source.section
    assert row.condition


@pytest.mark.parametrize(("document", "row_id", "choices", "when"), SCHEDULES)
def test_schedulers(
    guidelines: Guidelines, document: str, row_id: str, choices: tuple[str, ...], when: object
) -> None:
    row = guidelines[row_id]
    assert (row.source.document, row.parameter, row.choices) == (document, "lr_scheduler_type", choices)
    assert row.when.to_dict() == when


@pytest.mark.parametrize(("document", "row_id", "direction", "condition"), SIGNS)
def test_stability_signs(
    guidelines: Guidelines, document: str, row_id: str, direction: str, condition: str
) -> None:
    row = guidelines[row_id]
    assert (row.source.document, row.direction, row.condition) == (document, direction, condition)
    assert (row.low, row.high, row.choices) == (None, None, ())


@pytest.mark.parametrize(("document", "row_id", "condition"), RULES)
def test_rules_without_a_value(guidelines: Guidelines, document: str, row_id: str, condition: str) -> None:
    row = guidelines[row_id]
    assert (row.source.document, row.condition, row.low, row.choices) == (document, condition, None, ())


def test_the_lists_above_are_all_rows(guidelines: Guidelines) -> None:
    listed = [item[1] for item in (*NUMBERS, *SCHEDULES, *SIGNS, *RULES)]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(guidelines)


def test_conditions_are_the_tables_own_words(guidelines: Guidelines) -> None:
    assert {row_id: guidelines[row_id].condition for row_id in CONDITIONS} == CONDITIONS


def test_boundaries_say_which_way_they_warn(guidelines: Guidelines) -> None:
    directions = {row.id: row.direction for row in guidelines.by_topic()["boundary"]}
    assert directions == {
        "boundary.too_high": "too_high",
        "boundary.too_low": "too_low",
        "boundary.same_rate": "too_high",
    }


def test_topics_hold_the_tables(guidelines: Guidelines) -> None:
    sizes = {topic: len(rows) for topic, rows in guidelines.by_topic().items()}
    assert (sizes["scenario"], sizes["model_size"], sizes["batch_size"]) == (5, 4, 4)
    assert sum(sizes.values()) == len(guidelines)
    assert guidelines.scenarios() == ["general", "instruction", "complex", "short", "long"]


def test_rows_go_through_plain_data(guidelines: Guidelines) -> None:
    data = guidelines.to_list()
    assert Guidelines.from_list(data) == guidelines
    assert set(data[0]) == set(GuidelineRow.__dataclass_fields__)


def test_unknown_row_suggests(guidelines: Guidelines) -> None:
    with pytest.raises(KeyError, match=r"Did you mean 'size\.7-8b'"):
        guidelines["size.7-8"]


@pytest.mark.parametrize(
    ("size", "row_id", "exact"),
    [
        (1e9, "size.1-3b", True),
        (3.21e9, "size.1-3b", True),  # "3B" of Llama 3.2
        (6.74e9, "size.7-8b", True),  # "7B" of Llama 2
        (8.03e9, "size.7-8b", True),
        (13.02e9, "size.13b", True),
        (70.6e9, "size.70b", True),
        (5e6, "size.1-3b", False),
        (4.5e9, "size.1-3b", False),  # sqrt(3 * 7) = 4.58 is the middle in log
        (4.7e9, "size.7-8b", False),
        (30e9, "size.13b", False),  # sqrt(13 * 70) = 30.2
        (31e9, "size.70b", False),
        (405e9, "size.70b", False),
    ],
)
def test_nearest_size(guidelines: Guidelines, size: float, row_id: str, exact: bool) -> None:
    rows, note = guidelines.nearest_size("model_size", size)
    assert [row.id for row in rows] == [row_id]
    assert (note is None) == exact
    batches, _ = guidelines.nearest_size("batch_size", size)
    assert [row.id for row in batches] == [row_id.replace("size.", "batch.")]


def test_a_tie_between_sizes_goes_to_the_larger(guidelines: Guidelines) -> None:
    rows, note = guidelines.nearest_size("model_size", (3 * 7) ** 0.5 * 1e9)
    assert [row.id for row in rows] == ["size.7-8b"]
    assert note is not None
    assert "between rows" in note


def applying(guidelines: Guidelines, **given: object) -> set[str]:
    run = {
        "scenario": "general",
        "model_size": 8e9,
        "max_steps": 600,
        "method": "qlora",
        "train_embeddings": True,
    }
    return {row.id for row in guidelines.applying(**(run | given))}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("steps", "held", "not_held"),
    [
        (99, {"scenario.short", "scheduler.short"}, {"scheduler.medium", "scenario.long"}),
        (100, {"scheduler.short"}, {"scenario.short"}),
        (499, {"scheduler.short"}, {"scheduler.medium"}),
        (500, {"scheduler.medium"}, {"scheduler.short"}),
        (1000, {"scheduler.medium", "boundary.too_low"}, {"scenario.long", "scheduler.long_training"}),
        (1001, {"scheduler.medium", "scenario.long", "scheduler.long_training"}, {"boundary.too_low"}),
        (2000, {"scheduler.medium"}, {"scheduler.long", "warmup.long_runs"}),
        (2001, {"scheduler.long", "warmup.long_runs"}, {"scheduler.medium"}),
    ],
)
def test_lengths_of_run(guidelines: Guidelines, steps: int, held: set[str], not_held: set[str]) -> None:
    found = applying(guidelines, max_steps=steps)
    assert held <= found
    assert not found & not_held


def test_other_conditions(guidelines: Guidelines) -> None:
    assert "scenario.general" in applying(guidelines)
    assert "scenario.complex" not in applying(guidelines)
    # Named by the user, so it speaks of the run although the run is not that short.
    assert "scenario.short" in applying(guidelines, scenario="short")
    assert not {"embedding.default", "boundary.same_rate"} & applying(guidelines, train_embeddings=False)
    full = applying(guidelines, method="full", model_size=7e9)
    assert {"method.full", "method.full_7b"} <= full
    assert not {"method.qlora", "size.7-8b", "scenario.general", "embedding.ratio"} & full
    assert {"size.1-3b", "batch.1-3b"} <= applying(guidelines, model_size=4.5e9)
    assert "method.llama_8b" not in applying(guidelines, model_size=70e9)


def test_the_documents_disagree_about_embeddings(guidelines: Guidelines) -> None:
    pairs = {(item.first.id, item.second.id): item for item in disagreements(guidelines)}
    inside = pairs[("embedding.default", "embedding.times_lower")]
    assert (inside.first_value, inside.second_value, inside.between_documents) == (
        "0.25",
        "0.05 to 0.1",
        False,
    )
    assert pairs[("embedding.times_lower", "embedding.ratio")].between_documents
    assert ("embedding.default", "embedding.ratio") not in pairs  # 5e-5 of 2e-4 is 0.25


def test_other_disagreements(guidelines: Guidelines) -> None:
    pairs = {(item.first.id, item.second.id): item for item in disagreements(guidelines)}
    assert pairs[("scheduler.short", "scheduler.lora_start")].between_documents
    assert ("scheduler.medium", "scheduler.lora_start") not in pairs
    assert ("scheduler.short", "scheduler.medium") not in pairs  # no run is both
    assert ("warmup.share_of_steps", "warmup.long_runs") in pairs
    assert pairs[("warmup.ratio", "warmup.min_steps")].where == "runs under 100 steps"
    assert ("warmup.long_runs", "warmup.min_steps") not in pairs  # 3% of 2001 steps are 60
    assert pairs[("method.common_range", "boundary.too_high")].second_value == "1e-3 is too high"
    assert ("scenario.general", "boundary.too_high") not in pairs
    assert ("scenario.complex", "size.7-8b") in pairs
    assert ("scenario.general", "size.7-8b") not in pairs
    assert ("size.7-8b", "size.70b") not in pairs
    assert ("method.qlora", "method.full") not in pairs
