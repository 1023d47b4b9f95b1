"""Pages served on the loopback interface alone: the server, and which requests may reach it."""
