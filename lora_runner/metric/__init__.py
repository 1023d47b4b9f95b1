"""A score of a trial's generated answers, beside the loss or instead of it."""
