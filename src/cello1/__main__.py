"""`python -m cello1`, and with it `accelerate launch -m cello1 sft ...`."""

from cello1.cli import main

main()
