"""Where a study is kept: a database or a journal file, written to in whole transactions."""
