"""What all benchmarks use: reports, processes, time, memory, and counts of operations."""
