"""The page docs/guidelines.md and the commented `space:` block."""

from __future__ import annotations

from pathlib import Path

from search_spaces import Guidelines, commented_space_yaml, guidelines_page, load_guidelines, space_for

PAGE = Path(__file__).parents[2] / "docs" / "guidelines.md"


def test_the_committed_page_is_what_the_tables_give() -> None:
    expected = guidelines_page(load_guidelines())
    assert PAGE.read_text(encoding="utf-8") == expected, "run: python -m search_spaces > docs/guidelines.md"


def test_every_row_stands_on_the_page_with_its_source() -> None:
    page = guidelines_page(load_guidelines())
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    for row in load_guidelines().values():
        line = lines[f"`{row.id}`"]
        assert row.source.section in line
        assert row.condition in line
        assert not row.source.url or row.source.url in line
    for document in {row.source.document for row in load_guidelines().values()}:
        assert document in page


def test_the_section_on_disagreement_comes_from_the_rows() -> None:
    guidelines = load_guidelines()
    page = guidelines_page(guidelines).split("## Where the sources disagree")[1]
    assert "`embedding.times_lower` | 0.05 to 0.1 | `embedding.recommended`, `embedding.ratio` | 0.25" in page
    without = Guidelines(row for row in guidelines.values() if row.id != "embedding.times_lower")
    assert "embedding.times_lower" not in guidelines_page(without).split("## Where the sources disagree")[1]
    agreeing = Guidelines([guidelines["method.qlora"]])
    assert guidelines_page(agreeing).count("None.") == 2


def test_a_rows_words_cannot_break_the_table() -> None:
    row = load_guidelines()["method.qlora"]
    changed = Guidelines([type(row)(**{**vars(row), "condition": "a | b\n## c"})])
    assert "a \\| b ## c" in guidelines_page(changed)


def test_the_block_names_rows_conditions_and_what_else_can_be_asked_for() -> None:
    space = space_for(model_size=4.5e9, max_steps=60, train_embeddings=True)
    text = commented_space_yaml(space)
    assert text.startswith("space:\n")
    for line in (
        "  learning_rate: {low: 1.0e-05, high: 0.003, log: true}",
        "  #   scenario.general: 2e-4 (General Fine-tuning)",
        "  #   Note: nearest row 1-3B: 4.5e+09 parameters lie between rows.",
        "  #   embedding.times_lower: 0.05 to 0.1 (10-20x lower than LoRA LR)",
        "  #   Only when lr_scheduler_type is linear or cosine.",
        "  # lora_r: {choices: [8, 16, 32, 64]}",
    ):
        assert line in text.splitlines()


def test_a_fixed_value_is_written_as_one() -> None:
    space = space_for(
        model_size=8e9,
        max_steps=60,
        train_embeddings=False,
        overrides={"lora_r": {"value": 8}, "lr_scheduler_type": {"value": "cosine"}},
    )
    lines = commented_space_yaml(space).splitlines()
    assert "  lora_r: {value: 8}" in lines
    assert "  lr_scheduler_type: {value: cosine}" in lines
