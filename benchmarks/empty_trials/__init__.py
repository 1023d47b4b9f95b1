"""Parts of the benchmarks whose trials train nothing: orchestration and scale."""
