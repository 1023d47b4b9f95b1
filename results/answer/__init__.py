"""The answer of a sweep as one object: what to use, what the tables' values cost, and how sure that is."""
