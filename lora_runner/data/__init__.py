"""Datasets -> token ids with loss masks, a fixed evaluation set, and batches.

Exported training scripts use these names too (`results/export/templates/`).
"""

from lora_runner.data.chat.chat_template import resolve_chat_template
from lora_runner.data.load import DataBundle, load_data
from lora_runner.data.record_view import RecordView, SequenceView, TokenRun, show_record
from lora_runner.data.records.convert import convert
from lora_runner.data.records.example import Example, Message
from lora_runner.data.records.read_files import read_records
from lora_runner.data.tokens.batching import BatchPlan, steps_for_epochs
from lora_runner.data.tokens.eval_prompts import EvalPrompt, decode_text, eval_prompts
from lora_runner.data.tokens.rendering_counts import RenderingCounts, StopToken
from lora_runner.data.tokens.set_counts import SetCounts
from lora_runner.data.tokens.tokenize import IGNORED, TokenizedExample, TokenizedSet, num_targets, tokenize
from lora_runner.data.user_notices import DataNotice
from lora_runner.data.vocabulary_check import check_token_ids
from lora_runner.data_spec import DataSpec
from lora_runner.errors import DataError

__all__ = [
    "IGNORED",
    "BatchPlan",
    "DataBundle",
    "DataError",
    "DataNotice",
    "DataSpec",
    "EvalPrompt",
    "Example",
    "Message",
    "RecordView",
    "RenderingCounts",
    "SequenceView",
    "SetCounts",
    "StopToken",
    "TokenRun",
    "TokenizedExample",
    "TokenizedSet",
    "check_token_ids",
    "convert",
    "decode_text",
    "eval_prompts",
    "load_data",
    "num_targets",
    "read_records",
    "resolve_chat_template",
    "show_record",
    "steps_for_epochs",
    "tokenize",
]
