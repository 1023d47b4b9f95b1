"""A best trial beside which nothing was tried: the next trials go there, and the space is widened once."""
