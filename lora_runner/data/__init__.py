"""Datasets as people have them -> token ids with loss masks, a frozen evaluation set, and batches."""

from lora_runner.data.chat.chat_template import resolve_chat_template
from lora_runner.data.load import DataBundle, load_data
from lora_runner.data.notices import Notice
from lora_runner.data.records.formats import Example, Message, convert, recognise
from lora_runner.data.records.read_files import read_records
from lora_runner.data.records.record import Origin, Record
from lora_runner.data.shown_record import Piece, ShownRecord, ShownSequence, show_record
from lora_runner.data.spec import DataSpec
from lora_runner.data.tokens.batching import BatchPlan, steps_for_epochs
from lora_runner.data.tokens.counts import SetCounts
from lora_runner.data.tokens.prompts import EvalPrompt, as_text, eval_prompts
from lora_runner.data.tokens.rendering_counts import Rendering, StopToken
from lora_runner.data.tokens.tokenize import IGNORED, TokenizedExample, TokenizedSet, num_targets, tokenise
from lora_runner.data.tokens.vocabulary import check_ids
from lora_runner.errors import DataError

__all__ = [
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
