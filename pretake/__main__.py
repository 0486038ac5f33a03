"""``python -m pretake``: the same as the command."""

from pretake.cli import main

if __name__ == "__main__":
    main()
