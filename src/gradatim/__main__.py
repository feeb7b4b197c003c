"""``python -m gradatim``."""

from gradatim.cli.main import main

if __name__ == "__main__":
    main()
