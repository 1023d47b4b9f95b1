"""`make real`: a sweep on SmolLM2-135M-Instruct, compared with transformers and peft."""
