"""`python -m homefed` is the command line."""

from homefed.cli.main import main

if __name__ == "__main__":
    main()
