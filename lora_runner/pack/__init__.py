"""A pack: several trials trained side by side on one frozen base, each on its seat."""
