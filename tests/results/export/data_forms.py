"""Records in every form that a sweep takes, what each export makes of them, and the page that says so.

python -m tests.results.export.data_forms > docs/exports.md
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import types
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lora_runner.data import DataBundle, DataSpec, load_data
from lora_runner.errors import DataError
from results.export import TARGETS
from results.export.bundled_data_code import PACKAGE
from results.export.facts import FORMS, facts_of, form_fact_name
from results.export.written_records import SweepRecords, written_records

SCRIPTS = ("transformers", "trl", "unsloth")
SETTINGS = ("axolotl", "llama-factory")
_OF_DATA = {"data_format", "completion_only", "chat_template", "max_length", *map(form_fact_name, FORMS)}

PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
MARKED = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<end>"
    "{% endgeneration %}{% else %}{{ m.content }}<end>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_PROMPT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>\n{% endfor %}"
DATED = "{{ 'Today: ' + strftime_now('%d %B %Y') + '\n' }}" + PLAIN
LAST = PLAIN.replace(
    "{{ m.content }}", "{% if loop.last and m.role == 'assistant' %}<t></t>{% endif %}{{ m.content }}"
)
FORGETS = PLAIN.replace(
    "{{ m.content }}", "{{ m.content if loop.last or m.role != 'assistant' else m.content.split('|')[-1] }}"
)
WITH_TOOLS = (
    "{% if tools %}[tools]{{ tools | tojson }}<end>\n{% endif %}"
    + "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for call in m.tool_calls or [] %}<call>"
    + "{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}<end>\n{% endfor %}"
    + "{% if add_generation_prompt %}[assistant]{% endif %}"
)
THINKS = PLAIN.replace(
    "{{ m.content }}",
    "{% if m.reasoning_content %}<t>{{ m.reasoning_content }}</t>{% endif %}{{ m.content }}",
)
NAMES = PLAIN.replace("[{{ m.role }}]", "[{{ m.role }}{{ ' ' + m.name if m.name is defined }}]")
DEFINED = PLAIN.replace("<end>", "{{ '!' if m.tool_calls is defined else '' }}<end>")
SPOKEN = (
    "{% for m in messages %}{{ 'User' if m.role == 'user' else 'Assistant' }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
OTHER_END = PLAIN.replace("<end>", "<turn>")


def user(text: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **fields}


def answer(text: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


def two(n: int) -> list[dict[str, Any]]:
    return [user(f"ask {n}"), answer(f"think|say {n}"), user("more"), answer(f"more {n}")]


def one(n: int, **fields: Any) -> list[dict[str, Any]]:
    return [user(f"ask {n}", **fields), answer("yes", **fields)]


def task(n: int, **fields: Any) -> dict[str, Any]:
    return {"instruction": f"ask {n}", "output": "say", **fields}


def parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


TOOL = {"type": "function", "function": {"name": "sum", "parameters": {"type": "object", "properties": {}}}}


def calls(n: int) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "sum", "arguments": {"a": n}}}
    turns = [user("sum"), answer("", tool_calls=[call]), {"role": "tool", "content": "1"}, answer(f"is {n}")]
    return {"messages": turns, "tools": [TOOL]}


def shared(n: int) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": f"ask {n}"}, {"from": "gpt", "value": f"say {n}"}]}


@dataclass(frozen=True)
class Form:
    """A kind of record with a chat template that prints it; `record` makes one of a number."""

    name: str
    template: str | None
    record: Callable[[int], dict[str, Any]]


DATA_FORMS = (
    Form("messages", PLAIN, lambda n: {"messages": two(n)}),
    Form("prompt and completion", None, lambda n: {"prompt": f"ask {n} ", "completion": f"say {n}"}),
    Form("text, with CRLF around", None, lambda n: {"text": f"line {n}\r\nnext \n"}),
    Form("content in parts", PLAIN, lambda n: {"messages": [user(parts(f"ask {n}")), answer(parts("yes"))]}),
    Form("tools", WITH_TOOLS, lambda n: {"messages": two(n), "tools": [TOOL]}),
    Form("tools as JSON text", WITH_TOOLS, lambda n: {"messages": two(n), "tools": json.dumps([TOOL])}),
    Form("tool calls and answers", WITH_TOOLS, calls),
    Form("reasoning in a field", THINKS, lambda n: {"messages": one(n, reasoning_content="hm")}),
    Form("{% generation %} marks", MARKED, lambda n: {"messages": two(n)}),
    Form("no generation prompt", NO_PROMPT, lambda n: {"messages": two(n)}),
    Form("date in the template", DATED, lambda n: {"messages": two(n)}),
    Form("last turn printed differently", LAST, lambda n: {"messages": two(n)}),
    Form("earlier turns printed differently", FORGETS, lambda n: {"messages": two(n)}),
    Form("turns that end by another token than eos", OTHER_END, lambda n: {"messages": two(n)}),
    Form("turns that end by the next role", SPOKEN, lambda n: {"messages": two(n)}),
    Form("begins with the assistant", PLAIN, lambda n: {"messages": [answer(f"hello {n}"), *two(n)]}),
    Form("weight 0", PLAIN, lambda n: {"messages": [user("a"), answer("b", weight=0), *two(n)]}),
    Form("messages as JSON text", PLAIN, lambda n: {"messages": json.dumps(two(n))}),
    Form("messages under conversations", PLAIN, lambda n: {"conversations": two(n)}),
    Form("sharegpt", PLAIN, shared),
    Form("sharegpt with system", PLAIN, lambda n: {"system": "Be brief.", **shared(n)}),
    Form("alpaca without a template", None, lambda n: task(n, input="x")),
    Form("alpaca with history", PLAIN, lambda n: task(n, input="x", history=[["a", "b"]])),
    Form("alpaca, history as JSON text", PLAIN, lambda n: task(n, history='[["a", "b"]]')),
    Form("prompt as text, completion as messages", PLAIN,
         lambda n: {"prompt": f"ask {n}", "completion": [answer("say")]}),
    Form("empty tool_calls lists", DEFINED, lambda n: {"messages": one(n, tool_calls=[])}),
    Form("null fields", NAMES, lambda n: {"messages": one(n, name=None)}),
    Form("duplicate records", PLAIN, lambda n: {"messages": two(n // 3)}),
    Form("records that the evaluation set holds", PLAIN, lambda n: {"messages": two(n if n < 90 else 3)}),
)  # fmt: skip


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Characters as tokens, and the ends of turns as special ones."""
    words = {"<unk>": 0, "<end>": 1, "<turn>": 2} | {chr(code): code for code in range(3, 128)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<end>")
    made.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    return made


def load(form: Form, folder: Path) -> tuple[DataSpec, DataBundle]:
    """What the trials of a sweep on this form are trained on. Raises DataError where the sweep refuses."""
    for name, numbers in (("train", range(8)), ("eval", range(90, 93))):
        lines = (json.dumps(form.record(number)) + "\n" for number in numbers)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    spec = DataSpec(
        train=str(folder / "train.jsonl"),
        eval=str(folder / "eval.jsonl"),
        max_length=4000,
        chat_template=form.template,
    )
    return spec, load_data(spec, tokenizer())


def best_config_of(spec: DataSpec, data: DataBundle) -> dict[str, Any]:
    """A best config whose data are these; everything else is what each target takes without loss."""
    return {
        "sweep": {"name": "forms", "study_hash": "ab12", "trial": 0},
        "model": {"name": "/base", "revision": None, "trust_remote_code": False},
        "quantization": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "float32",
        },
        "lora": {"lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"},
        "training": {
            "learning_rate": 1e-4,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0,
            "max_steps": 3,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
        },
        "data": {
            "train": spec.train,
            "eval": spec.eval,
            "format": data.format,
            "forms": list(data.forms),
            "max_length": spec.max_length,
            "completion_only": spec.completion_only,
            "chat_template": data.chat_template,
            "train_digest": data.train.digest,
            "eval_digest": data.eval.digest,
        },
        "result": {"eval_loss": 1.0},
        "versions": {},
    }


def _build(target: str, config: dict[str, Any]) -> Any:
    return TARGETS[target].build(config, None, TARGETS[target].version(None))


_own: dict[Path, dict[str, types.ModuleType]] = {}
"""Folder of an export -> the modules of its data code."""


def _script(target: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The names of an exported train.py; Unsloth, not installed here, has no part in reading data."""
    files = _build(target, config).files
    for name, text in files.items():
        if not (folder / name).exists() or name == "train.py":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "train", "__file__": str(folder / "train.py")}
    stub = types.ModuleType("unsloth")
    for name in ("FastLanguageModel", "UnslothTrainer", "UnslothTrainingArguments"):
        setattr(stub, name, object)
    path = list(sys.path)
    sys.modules["unsloth"] = stub
    sys.modules |= _own.setdefault(folder, {})
    try:
        exec(compile(files["train.py"], "train.py", "exec"), names)
    finally:
        del sys.modules["unsloth"]
        sys.path[:] = path
        # The next target brings its own.
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            _own[folder][name] = sys.modules.pop(name)
    return names


def _rows(examples: Any) -> list[tuple[list[int], list[int]]]:
    if examples and isinstance(examples[0], dict):
        return [(one["input_ids"], one["labels"]) for one in examples]
    return [(list(one.input_ids), list(one.labels)) for one in examples]


def by_script(target: str, spec: DataSpec, data: DataBundle, folder: Path) -> str:
    """`equal`, or what differs between the script's tokens and labels and the trials'."""
    script = _script(target, best_config_of(spec, data), folder)
    asked = Namespace(
        train=script["TRAIN_DATA"], eval=script["EVAL_DATA"], chat_template=script["CHAT_TEMPLATE"]
    )
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        train, held_out = script["load_sets"](asked, tokenizer())
    if said.getvalue().count("token for token those of the sweep") != 2:
        return "differs by its own word"
    if _rows(train) != _rows(data.train.examples) or _rows(held_out) != _rows(data.eval.examples):
        return "differs"
    if "copies_in_eval" in data.forms:
        return "equal"
    alone = script["load_examples"](spec.train, tokenizer())
    return "equal" if sorted(_rows(alone)) == sorted(_rows(train)) else "differs when loaded alone"


def by_settings(target: str, spec: DataSpec, data: DataBundle) -> list[str]:
    """What a target of settings files lists as lost of the data, with the sweep's own records beside it."""
    selected = [] if "copies_in_eval" in data.forms else None
    own = SweepRecords(eval=[], train=selected, columns=[])
    config = written_records(best_config_of(spec, data), own).config
    said = _build(target, config).facts
    found = [said[fact.name].lost for fact in facts_of(config) if fact.name in _OF_DATA]
    return list(dict.fromkeys(filter(None, found)))


@cache
def outcomes() -> tuple[tuple[Form, str, list[str], list[list[str]]], ...]:
    """(form, how it is trained, a word per script, sentences per settings target); nothing where refused."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        folders = {target: Path(place, target) for target in SCRIPTS}
        for folder in folders.values():
            folder.mkdir()
        for form in DATA_FORMS:
            try:
                spec, data = load(form, Path(place))
            except DataError as error:
                found.append((form, f"refused: {error.message}", [], []))
                continue
            scripts = [by_script(target, spec, data, folders[target]) for target in SCRIPTS]
            lost = [by_settings(target, spec, data) for target in SETTINGS]
            found.append((form, ", ".join(data.train.rendering.ways), scripts, lost))
    return tuple(found)


_HEAD = """\
# Records through the exports

What becomes of records in each form that a sweep takes, computed by
`python -m tests.results.export.data_forms > docs/exports.md`; a test compares this page with what is
computed.

`equal`: the exported `train.py` trains on the tokens and labels of the trials, and evaluates on theirs.
`yes`: the settings file says it. A number: what the export lists as lost, below; `--strict` refuses it.
Axolotl and LLaMA-Factory read records with their own code. Beside their settings stand the sweep's own
evaluation records (`eval.jsonl`, in its order) and, where it did not train on all of its source, those that
it trained on (`train.jsonl`): the columns that it read, at most 256 MiB each, compared with the study's
digests. Records that changed since are not written, and the export says so.
`peft`, `llama.cpp` and `yaml` train nothing. How a conversation becomes tokens (second column) is in
[data.md](data.md).

| form | trained as | transformers | trl | unsloth | axolotl | llama-factory |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The page as it is committed."""
    sentences: dict[str, int] = {}
    rows = []
    for form, trained, scripts, lost in outcomes():
        cells = list(scripts)
        for lines in lost:
            numbers = [sentences.setdefault(line, len(sentences) + 1) for line in lines]
            cells.append(", ".join(map(str, sorted(numbers))) or "yes")
        cells += [""] * (len(SCRIPTS) + len(SETTINGS) - len(cells))
        rows.append(f"| {' | '.join([form.name, trained, *cells])} |")
    listed = [f"{number}. {line}" for line, number in sentences.items()]
    return _HEAD + "\n".join([*rows, "", *listed]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
