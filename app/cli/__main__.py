"""`python -m app.cli` is `harrier`."""

from app.cli import main

main()
