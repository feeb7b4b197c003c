"""``python -m gradatim.cli``."""

from gradatim.cli.main import main

main()
