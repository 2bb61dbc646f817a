"""`python -m observe` is the `observe` command."""

from observe.cli import main

main()
