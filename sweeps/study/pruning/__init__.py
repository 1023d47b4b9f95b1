"""When trials are stopped early, and what a sampler is told of those that were."""
