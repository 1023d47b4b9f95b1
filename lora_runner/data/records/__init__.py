"""Files, folders and hub ids -> records that remember their line, in the formats people bring."""
