"""`python -m sweeps.config.reference > docs/configuration.md`."""

from sweeps.config.reference.page import page

if __name__ == "__main__":
    print(page(), end="")
