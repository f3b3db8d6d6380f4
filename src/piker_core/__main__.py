"""`python -m piker_core` is the command `piker-core`."""

from piker_core.cli import main

if __name__ == "__main__":
    main()
