"""Checking ways: bit by bit in other company, timed, and in processes that may die."""
