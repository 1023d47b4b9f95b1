"""The records of the dataset: a question about a function's signature, answered with its docstring.

From the same functions of the standard library as the demo. The model has most likely seen them in
pretraining, but not in this form.
"""

from __future__ import annotations

from typing import Any

from sweeps.demo.docstring_dataset import DocstringRecord

QUESTION = "What does this Python function do? Answer with the first sentence of its docstring."
OPENING = '"""'


def conversation(record: DocstringRecord) -> dict[str, Any]:
    """{"messages": [...]}: two turns; the signature is in a code block, without the opening quotes."""
    signature = record.prompt.rstrip().removesuffix(OPENING).rstrip()
    question = {"role": "user", "content": f"{QUESTION}\n\n```python\n{signature}\n```"}
    return {"messages": [question, {"role": "assistant", "content": record.completion}]}
