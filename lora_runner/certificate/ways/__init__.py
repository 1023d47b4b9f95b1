"""The ways to compute each kind, as cases with fresh random inputs."""
