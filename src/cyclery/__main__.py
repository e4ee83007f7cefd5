"""Run the command line as ``python -m cyclery``."""

from cyclery.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
