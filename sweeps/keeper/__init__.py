"""The keeper: alone writes to the study, hands out trials, and decides which go on."""
