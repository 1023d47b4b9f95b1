"""The sections of a sweep file, one class each."""
