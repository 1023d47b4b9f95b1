"""A score of the answers that a trial's model gives, beside the loss or in its place."""
