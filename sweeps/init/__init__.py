"""`sweeps init`: a commented sweep file whose values fit one model and one data set."""
