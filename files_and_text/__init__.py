"""What every package needs to read and write files and text; standard library and yaml only."""
