"""``python -m boresight``."""

from boresight.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
