"""Datasets as people have them -> token ids with loss masks, a frozen evaluation set, and batches."""

from lora_runner.data.batching import BatchPlan, steps_for_epochs
from lora_runner.data.chat_template import resolve_chat_template
from lora_runner.data.counts import SetCounts
from lora_runner.data.formats import Example, Message, convert, recognise
from lora_runner.data.load import DataBundle, load_data
from lora_runner.data.notices import Notice
from lora_runner.data.prompts import EvalPrompt, as_text, eval_prompts
from lora_runner.data.reading import read_records
from lora_runner.data.records import Origin, Record
from lora_runner.data.rendering import Rendering, StopToken
from lora_runner.data.showing import Piece, ShownRecord, ShownSequence, show_record
from lora_runner.data.spec import FORMATS, DataSpec
from lora_runner.data.tokenise import IGNORED, TokenizedExample, TokenizedSet, num_targets, tokenise
from lora_runner.data.vocabulary import check_ids
from lora_runner.errors import DataError

__all__ = [
    "FORMATS",
    "IGNORED",
    "BatchPlan",
    "DataBundle",
    "DataError",
    "DataSpec",
    "EvalPrompt",
    "Example",
    "Message",
    "Notice",
    "Origin",
    "Piece",
    "Record",
    "Rendering",
    "SetCounts",
    "ShownRecord",
    "ShownSequence",
    "StopToken",
    "TokenizedExample",
    "TokenizedSet",
    "as_text",
    "check_ids",
    "convert",
    "eval_prompts",
    "load_data",
    "num_targets",
    "read_records",
    "recognise",
    "resolve_chat_template",
    "show_record",
    "steps_for_epochs",
    "tokenise",
]
