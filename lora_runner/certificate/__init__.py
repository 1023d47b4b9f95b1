"""What is invariant on this machine, and how fast it is: checked on fresh random inputs."""
