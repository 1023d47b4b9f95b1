# ruff: noqa: E501  (a case a line)
"""Every mistake in a sweep file is reported with its rule, value and line; all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from files_and_text.problems import Problem
from sweeps.config import SweepConfig, load_sweep
from sweeps.config.sections.reliability import MIN_LEASE_SECONDS
from sweeps.errors import ConfigError
from sweeps.study.lease import BEAT_SECONDS

Problems = Callable[[str], list[Problem]]

HEAD = """\
name: small
model: some/model
data: train.jsonl
"""
GOOD = HEAD + "training: {max_steps: 100}\n"

# What is written below GOOD (line 5 on), the line of the problem, and words that the message must hold.
BELOW_GOOD = [
    ("trails: 3", 5, ["trails is an unknown key", "Did you mean 'trials'?"]),
    ("lora:\n  rank: 3", 6, ["lora.rank is an unknown key", "Known: r, alpha"]),
    ("lora:\n  max_steps: 3", 6, ["It belongs under training"]),
    ("lora:\n  trials: 3", 6, ["It belongs at the top of the file"]),
    ("lora:\n  r: 8\n  lora_alpha: -3", 7, ["lora.alpha must be", "got -3"]),
    ("lora:\n  r: 8\n  lora_r: 4", 7, ["lora.lora_r is given twice, as lora_r and as r"]),
    ("learning_rate: 1e-4", 5, ["its range belongs under space"]),
    ("lora: 16", 5, ["lora must be a mapping of keys; got 16"]),
    ("lora: {r: 1.5}", 5, ["lora.r must be a whole number, at least 1; got 1.5"]),
    ("lora: {dropout: 1}", 5, ["lora.dropout must be a number, at least 0 and below 1; got 1"]),
    ("lora: {target_modules: q_proj}", 5, ["all-linear or a list", "got 'q_proj'"]),
    ("lora: {use_rslora: 1}", 5, ["lora.use_rslora must be true or false; got 1"]),
    ("reliability: {lease_seconds: 4}", 5, ["reliability.lease_seconds must be a number, at least 10; got 4"]),
    ("reliability: {frozen_gib: -1}", 5, ["reliability.frozen_gib must be a number, at least 0; got -1"]),
    ("reliability: {frozen_gib: .inf}", 5, ["reliability.frozen_gib must be a number, at least 0; got inf"]),
    ("reliability: {frozen_gib: much}", 5, ["reliability.frozen_gib must be a number, at least 0; got 'much'"]),
    ("reliability: {keep_frozen: 8}", 5, ["reliability.keep_frozen is now frozen_gib, in GiB of disk"]),
    ("trials: many", 5, ["trials must be a whole number, at least 1; got 'many'"]),
    ("trials: 0", 5, ["trials must be a whole number, at least 1; got 0"]),
    ("trials: true", 5, ["whole number", "got true"]),
    ("trials:", 5, ["trials must be a whole number", "got nothing"]),
    ("trials: .inf", 5, ["got inf"]),
    ("seats: some", 5, ["seats must be auto or a whole number, at least 1; got 'some'"]),
    ("workers: 0", 5, ["workers must be auto or a whole number, at least 1; got 0"]),
    ("gpus_per_worker: 2", 5, ["must be 1 unless model.device_map is auto", "got 2"]),
    ("scenario: genral", 5, ["got 'genral'", "Did you mean 'general'?"]),
    ("method: full", 5, ["method must be qlora", "not trained here yet"]),
    ("method: lora", 5, ["method must be qlora", "got 'lora'"]),
    ("train_embeddings: [embed_token]", 5, ["Did you mean 'embed_tokens'?"]),
    ("train_embeddings: 3", 5, ["true, false or a list of embed_tokens and lm_head, or {tokens: [...]}; got 3"]),
    ("train_embeddings: [embed_tokens, '<|user|>']", 5, ["train_embeddings[1]", "{tokens: [...]}; got '<|user|>'"]),
    ("train_embeddings: {}", 5, ["train_embeddings needs tokens", "got an empty mapping"]),
    ("train_embeddings:\n  tokens: []", 6, ["tokens must name at least one token; got an empty list"]),
    ("train_embeddings:\n  tokens: <|user|>", 6, ["tokens must be a list of tokens; got '<|user|>'"]),
    ("train_embeddings:\n  tokens:\n    - <|user|>\n    - -1", 8, ["tokens[1] must be a token id, at least 0; got -1"]),
    ("train_embeddings:\n  tokens: [true]", 6, ["tokens[0] must be a token", "got true; put it in quotes"]),
    ("train_embeddings: {tokens: [1.5]}", 5, ["its id as a whole number; got 1.5"]),
    ("train_embeddings: {tokens: ['']}", 5, ["must be a token as the tokenizer writes it", "got ''"]),
    ("train_embeddings:\n  tokens: [a]\n  lm_head: true", 7, ["lm_head cannot be given with tokens", "in full"]),
    ("train_embeddings:\n  tokens: [a]\n  token: [b]", 7, ["Did you mean 'tokens'?"]),
    ("search: {sampler: tpa}", 5, ["search.sampler", "got 'tpa'", "Did you mean 'tpe'?"]),
    ("search: {sampler: GPSample}", 5, ["Did you mean 'GPSampler'?"]),
    ("search: {pruner: asha}", 5, ["Known: successive_halving, hyperband, median, none, freeze_thaw."]),
    ("search:\n  sampler: random\n  sampler_options:\n    multivariate: true", 8, ["unknown key; the random sampler takes none"]),
    ("search:\n  sampler_options:\n    multivariat: true", 7, ["Did you mean 'multivariate'?"]),
    ("search:\n  sampler_options: {group: true}", 6, ["multivariate: true"]),
    ("search:\n  pruner_options: {bootstrap_count: 2}", 6, ["works only with a number for min_resource"]),
    ("search:\n  pruner: hyperband\n  pruner_options: {reduction_factor: 1}", 7, ["at least 2; got 1"]),
    ("search:\n  include: [lora_r, lora_beta]", 6, ["search.include[1]", "got 'lora_beta'", "lora_alpha"]),
    ("search:\n  widen: {learning_rate: 0.5}", 6, ["at least 1; got 0.5"]),
    ("search: {seed: -1}", 5, ["at least 0"]),
    ("search: {timeout_seconds: 0}", 5, ["above 0; got 0"]),
    ("storage: postgres://host/db", 5, ["got 'postgres'", "Did you mean 'postgresql'?"]),
    ("storage: study.db", 5, ["must be a database URL"]),
    ("storage: 'sqlite://'", 5, ["SQLite in memory"]),
    ("storage: env:MY-DB", 5, ["name of an environment variable"]),
    ("output: train.jsonl", 5, ["output must be a folder"]),
    ("guidelines: rows.yaml", 5, ["guidelines must be a list of files; got 'rows.yaml'"]),
    ("guidelines:\n  - rows.yaml", 6, ["does not exist"]),
    ("space: 3", 5, ["space must be a mapping from dimensions to their ranges; got 3"]),
    ("space:\n  learning_rate: 1e-4", 6, ["{value: 2e-4}", "got 0.0001"]),
    ("space:\n  learning_rate:\n    low: 1e-3\n    high: 1e-4", 7, ["needs low < high", "0.001", "0.0001"]),
    ("space:\n  learning_rate: {low: '1e-3', high: '1e-3'}", 6, ["needs low < high"]),
    ("space:\n  learning_rate:\n    high: 1e-4\n    hgih: 1e-3", 8, ["Did you mean 'high'?"]),
    ("space:\n  learning_rte: {low: 1e-5}", 6, ["Did you mean 'learning_rate'?"]),
    ("space:\n  lr_scheduler_type:\n    choices:\n      - cosine\n      - cosin", 9, ["'cosin' is not a scheduler"]),
    ("space:\n  embedding_lr_ratio: {low: 0.1, high: 1}", 6, ["has no effect", "train_embeddings is false"]),
    ("lora: {r: 8}\nlora: {r: 9}", 6, ["'lora' is given twice; first on line 5"]),
    ("lora:\n  r: 8\n  r: 9", 7, ["'r' is given twice; first on line 6"]),
    ("lora: {r: 8", 5, ["not valid YAML"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), BELOW_GOOD, ids=[case[0] for case in BELOW_GOOD])
def test_one_problem(problems: Problems, folder: Path, text: str, line: int, words: list[str]) -> None:
    (found,) = problems(GOOD + text + "\n")
    assert str(found).startswith(f"{folder / 's.yaml'}:{line}: ")
    for word in words:
        assert word in found.message


# The whole file, the line of the problem, and words that the message must hold.
WHOLE_FILES = [
    ("model: a/b\ndata: train.jsonl\ntraining: {max_steps: 1}", 1, ["name is missing"]),
    ("name: x\ndata: train.jsonl\ntraining: {max_steps: 1}", 1, ["model is missing", "local folder"]),
    ("name: x\nmodel: a/b\ntraining: {max_steps: 1}", 1, ["data is missing"]),
    (HEAD, 1, ["training is missing", "max_steps or num_train_epochs"]),
    (HEAD + "training:\n", 4, ["training.num_train_epochs or max_steps must be given; got neither"]),
    (HEAD + "training: {evaluations: 5}", 4, ["got neither"]),
    (HEAD + "training:\n  max_steps: 10\n  num_train_epochs: 2", 6, ["keep one; got 2 epochs and max_steps 10"]),
    (HEAD + "training:\n  max_steps: 10\n  evaluations: 11", 6, ["at most max_steps, 10; got 11"]),
    (HEAD + "training:\n  max_steps: 10\n  evaluations: 2\n  report_at: [1.0]", 7, ["keep one"]),
    (HEAD + "training:\n  max_steps: 10\n  report_at: [0.5, 0.2, 1.0]", 6, ["must be rising"]),
    (HEAD + "training:\n  max_steps: 10\n  report_at: [0.5]", 6, ["ending with 1.0"]),
    (HEAD + "training:\n  max_steps: 10\n  report_at: [0.005, 1.0]", 6, ["whole percents"]),
    (HEAD + "training:\n  max_steps: 10\n  adam_beta1: one", 6, ["got 'one'"]),
    (
        HEAD + "training:\n  max_steps: 9\n  lr_scheduler_kwargs:\n    cosin: {}",
        7,
        ["training.lr_scheduler_kwargs.cosin is an unknown key", "Did you mean 'cosine'?"],
    ),
    (
        HEAD + "training:\n  max_steps: 9\n  lr_scheduler_kwargs:\n    linear: {power: 2}",
        7,
        ["unknown key; the scheduler linear takes none"],
    ),
    (
        HEAD + "training:\n  max_steps: 9\n  lr_scheduler_kwargs:\n    cosine_with_min_lr: {min_lr: 0, min_lr_rate: 0}",
        7,
        ["exactly one of min_lr and min_lr_rate"],
    ),
    (
        HEAD + "training:\n  max_steps: 9\n  lr_scheduler_kwargs:\n    cosine: {num_cycles: 1}",
        7,
        ["num_cycles must be 0.5 or less", "waves that end low; got 1"],
    ),
    (
        HEAD + "training:\n  max_steps: 9\n  lr_scheduler_kwargs:\n    cosine_with_min_lr: {min_lr_rate: 1}",
        7,
        ["min_lr_rate must be a number, at least 0 and below 1; got 1"],
    ),
    (
        HEAD + "training:\n  max_steps: 9\n  lr_scheduler_kwargs:\n"
        "    warmup_stable_decay: {num_decay_steps: 3, num_cycles: 0.25}",
        7,
        ["num_cycles must be 0.5, which only falls", "got 0.25"],
    ),
    (
        HEAD + "training:\n  max_steps: 9\n  lr_scheduler_kwargs:\n"
        "    warmup_stable_decay: {num_decay_steps: 3, num_cycles: 0.5, decay_type: linear}",
        7,
        ["num_cycles has no effect beside decay_type linear"],
    ),
    ("name: a/b\nmodel: a/b\ndata: train.jsonl\ntraining: {max_steps: 1}", 1, ["name must be", "'a/b'"]),
    ("name: ..\nmodel: a/b\ndata: train.jsonl\ntraining: {max_steps: 1}", 1, ["name must be", "'..'"]),
    ("name: 2024\nmodel: a/b\ndata: train.jsonl\ntraining: {max_steps: 1}", 1, ["put it in quotes"]),
    ("name: x\nmodel:\n  revision: main\ndata: train.jsonl\ntraining: {max_steps: 1}", 2, ["model.name is missing"]),
    ("name: x\nmodel:\n  name: a/b\n  size: 8Q\ndata: train.jsonl\ntraining: {max_steps: 1}", 4, ["8B; got '8Q'"]),
    ("name: x\nmodel: a/b\ndata:\n  train: trian.jsonl\ntraining: {max_steps: 1}", 4, ["Did you mean 'train.jsonl'?"]),
    ("name: x\nmodel: a/b\ndata: {train: train.jsonl, eval: no/e.csv}\ntraining: {max_steps: 1}", 3, ["data.eval"]),
    (
        "name: x\nmodel: a/b\ndata:\n  train: train.jsonl\n  chat_template: chat.jinja\ntraining: {max_steps: 1}",
        5,
        ["data.chat_template", "does not exist"],
    ),
    (
        "name: x\nmodel: a/b\ndata:\n  train: train.jsonl\n  format: sharegtp\ntraining: {max_steps: 1}",
        5,
        ["Did you mean 'sharegpt'?"],
    ),
    ("- name: x", 1, ["must be a mapping"]),
    ("just words", 1, ["must be a mapping"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), WHOLE_FILES, ids=[case[0] for case in WHOLE_FILES])
def test_one_problem_of_a_whole_file(problems: Problems, text: str, line: int, words: list[str]) -> None:
    (found,) = problems(text + "\n")
    assert found.line == line
    for word in words:
        assert word in found.message


def test_all_problems_come_together_in_the_order_of_the_file(problems: Problems) -> None:
    text = """\
name: a b
modle: x
data:
  train: gone.jsonl
  max_length: one
training:
  max_steps: 0
  lr_scheduler_kwargs: {cosin: {}, cosine: {num_cycle: 1}}
search:
  sampler: tpa
  sampler_options: {popsize: 3}
  pruner_options: {reduction_factor: 1, speed: 2}
trials: "1e-4"
scenario: genral
space:
  learning_rate: {low: 1e-3, high: 1e-4}
  lr_scheduler_type: {choices: [cosin]}
"""
    lines = [item.line for item in problems(text)]
    # Line 1 twice: the name, and the missing model. Line 11 not at all: the sampler it is for is not known.
    assert lines == [1, 1, 2, 4, 5, 7, 8, 8, 10, 12, 12, 13, 14, 16, 17]


def test_rules_between_keys_are_silent_about_keys_that_are_wrong_by_themselves(problems: Problems) -> None:
    (found,) = problems(HEAD + "training: {max_steps: none, evaluations: 3}\n")
    assert "max_steps must be a whole number" in found.message
    (found,) = problems(GOOD + "search: {sampler: cma, sampler_options: {popsize: 4}}\n")
    assert "sampler must be" in found.message
    (found,) = problems(GOOD.replace("some/model", "{name: a/b, device_map: x}") + "gpus_per_worker: 2\n")
    assert "device_map" in found.message


@pytest.mark.parametrize("bits", ["16", "true", "8.5", "eight"])
def test_optimizer_states_have_32_or_8_bits(problems: Problems, bits: str) -> None:
    (found,) = problems(HEAD + f"training: {{max_steps: 10, embedding_optimizer_bits: {bits}}}\n")
    assert "embedding_optimizer_bits must be 32 or 8; got" in found.message
    assert found.line == 4


def test_rows_of_single_tokens_take_no_moments_in_8_bits(problems: Problems) -> None:
    training = "training:\n  max_steps: 10\n  embedding_optimizer_bits: 8\n"
    (found,) = problems(HEAD + training + "train_embeddings: {tokens: [a]}\n")
    assert found.line == 6
    assert (
        "training.embedding_optimizer_bits must be 32 beside train_embeddings: {tokens: ...}" in found.message
    )


def test_rules_between_keys_are_told_beside_wrong_keys(problems: Problems) -> None:
    found = problems(HEAD + "training:\n  max_steps: 10\n  num_train_epochs: 1\n  weight_decay: -1\n")
    assert [item.line for item in found] == [6, 7]
    assert "keep one" in found[0].message


def test_an_empty_file_lacks_everything(problems: Problems) -> None:
    assert [item.message.split()[0] for item in problems("")] == ["name", "model", "data", "training"]


def test_user_guidelines_are_read_and_their_problems_keep_their_own_lines(
    problems: Problems, folder: Path
) -> None:
    (folder / "rows.yaml").write_text("rows:\n  scenario.mine:\n    topic: scenarios\n")
    found = problems(GOOD + "guidelines: [rows.yaml]\nscenario: mine\nlora: {r: 0}\n")
    assert [(Path(item.path or "").name, item.line) for item in found] == [("s.yaml", 7), ("rows.yaml", 3)]


def test_a_missing_sweep_file_and_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: the file does not exist"):
        load_sweep(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match=r"the folder holds no sweep\.yaml"):
        load_sweep(tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("runs/smlal", "runs/small"), ("smal", "runs/small"), ("swep.yaml", "sweep.yaml"), ("other", None)],
)
def test_a_missing_path_names_the_nearest_run_folder_or_sweep_file(
    given: str, meant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "small").mkdir(parents=True)
    for file in ("sweep.yaml", "runs/small/sweep.yaml"):
        (tmp_path / file).write_text("name: small\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_sweep(given)
    hint = "" if meant is None else f" Did you mean {meant!r}?"
    assert str(error.value) == f"{given}: the file does not exist.{hint}"


def test_a_password_is_never_repeated(problems: Problems) -> None:
    for url in (
        "postgresql://me:hunter2@host/db",
        "mysql://me@host/db?password=hunter2",
        "mysql://me:hun/ter2@host/db",
    ):
        (found,) = problems(GOOD + f"storage: {url}\n")
        assert "must not hold a password" in found.message
        assert "ter2" not in found.message


@pytest.mark.parametrize(
    "url",
    [
        "sftp://me:hunter2@host/share",
        "smb://:hunter2@host/share",
        "ftp://me:hun/ter2@host/share",
        "simplecache::sftp://me:hunter2@host/share",
        "webdav://host/share?password=hunter2",
    ],
)
def test_nor_is_one_in_the_place_of_checkpoints(problems: Problems, url: str) -> None:
    (found,) = problems(GOOD + f"reliability: {{checkpoints: '{url}'}}\n")
    assert found.line == GOOD.count("\n") + 1
    assert "must not hold a password" in found.message
    assert "ter2" not in found.message


@pytest.mark.parametrize(
    "place", ["s3://bucket/folder", "sftp://me@host/share", "file:///home/me@host/c", "/home/me@host/c:d"]
)
def test_places_of_checkpoints_without_one_are_kept(load: Callable[[str], SweepConfig], place: str) -> None:
    assert load(GOOD + f"reliability: {{checkpoints: '{place}'}}\n").reliability.checkpoints == place


def test_a_lease_outlasts_a_late_sign_of_life() -> None:
    """A shorter one would let living keepers take a study from each other."""
    assert MIN_LEASE_SECONDS >= 2 * BEAT_SECONDS


def test_loading_writes_nothing(problems: Problems, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    problems(GOOD + "output: deep/er\ntrials: 0\n")
    assert sorted(folder.rglob("*")) == sorted([*before, folder / "s.yaml"])
