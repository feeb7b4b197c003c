"""What ends a step. One boundary a file, each a part; the contract is :mod:`gradatim.text.boundaries.base`."""
