"""`make real`: a sweep on a real language model, SmolLM2-135M-Instruct, compared with transformers and peft.

__main__.py           the steps in order
gguf_model.py         the model's folder, made from the GGUF file of a package
model_check.py        whether that folder works: perplexity and one answer
conversations.py      the dataset
real_sweep.py         the sweep file, and which losses are compared
compare_with_peft.py  the same losses from plain transformers and peft
result_page.py        the page real.md
"""
