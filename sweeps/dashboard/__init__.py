"""optuna-dashboard for a sweep's study, on the loopback interface only and read-only by default."""
