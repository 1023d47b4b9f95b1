"""What samplers are shown of a study, beside what is stored."""
