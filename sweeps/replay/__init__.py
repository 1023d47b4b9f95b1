"""`sweeps replay`: a trial trained again, alone, and compared with its record bit by bit."""
