"""The report's sections of text and tables, one file each."""
