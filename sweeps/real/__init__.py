"""The whole job on a real language model: SmolLM2-135M-Instruct, from a package of weights (`make real`)."""
