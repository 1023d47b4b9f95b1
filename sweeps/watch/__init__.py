"""`sweeps watch`: a page on the loopback interface that shows a sweep while it runs, and can stop it."""
