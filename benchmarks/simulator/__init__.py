"""Sweeps and confirmations with a known truth, made without training; tests and benchmarks share it.

Nothing here is taken from the program's own statistics: losses are drawn from surfaces whose minimum is
known, the program confirms and decides as it always does, and `truth.py` says which words are wrong.

shapes.py         loss against the learning rate, in percent of the lowest
surface.py        the expected loss of every configuration of a space
noise.py          what one run adds to it: its seed, chance, and an early end
worlds.py         surfaces and noise to draw from, by name
sweeps.py         a sweep on a surface, as the program reads one
space_grid.py     every configuration of a space, for the least cost inside a row
confirmations.py  a confirmation of such a sweep, in the order of the program's own plan
truth.py          whether a word is wrong, by the program's own meaning and for someone who retunes the rest
scores.py         wrong, undecided and lost words over many sweeps, with Monte-Carlo errors
curves.py         learning curves of trials on a surface
searches.py       a search over such trials: seats in virtual time, one study in memory
replays.py        published losses as a surface to search
"""
