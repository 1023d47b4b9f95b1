"""`python -m sweeps` is the `sweeps` command."""

from sweeps.cli.main import main

if __name__ == "__main__":
    main()
