"""The modules that replace the base's and compute for several seats at once."""
