"""What one hyperparameter's value costs by itself, from trials that also differ in others."""
