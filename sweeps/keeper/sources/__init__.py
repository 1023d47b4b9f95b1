"""Where the trials of a study come from: tables and sampler, a confirmation's plan, the sweep's tail."""
