"""Parts of the benchmarks of a training step: step, floor, side_by_side, generation, update."""
