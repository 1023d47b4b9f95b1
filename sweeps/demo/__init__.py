"""`sweeps demo`: a small base model and a dataset, both made from Python's standard library, and a sweep on
them.

demo_sweep.py         the sweep file of the demo
base_model.py         tokenizer and Llama, pretrained on first use
docstring_dataset.py  signature -> docstring, as training and evaluation records
library_sources.py    the source files that both are made from
model_cache.py        folders of built models in the user's cache
"""
