"""The Optuna study: made, recognised, sampled, counted, and written to by one keeper at a time."""
