"""Where a study is stored: in a database or a journal file, written to in whole transactions."""
