"""What `sweeps plan` prints: first what matters, then details."""
