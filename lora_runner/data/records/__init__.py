"""Files, folders and hub datasets -> records with their file and line -> Examples."""
