"""What all commands share: their help, usage errors, the run they mean, completion."""
