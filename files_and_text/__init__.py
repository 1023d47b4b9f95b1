"""Files, text and names that all packages share; imports the standard library and yaml only.

atomic_files    files and folders that are written whole or not at all
trial_paths     names of what a trial leaves on disk
yaml_lines      safe YAML with the line of every key
value_checker   checks hand-written values and reports all problems at once
problems        InputError: problems with file and line
nearest_name    suggestions for a misspelt name
choices         schedulers, data formats and metrics by name
numbers         numbers as text
plain_values    values as JSON can hold them
"""
