"""The workers on Ray: started, watched, restarted, and shown while they run."""
