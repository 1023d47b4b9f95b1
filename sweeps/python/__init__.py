"""What `Sweep` is to someone who calls it from Python: a sweep of arguments, its best, its figures."""
