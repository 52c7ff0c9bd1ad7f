"""``python -m edgekv``: the same as the ``edgekv`` program."""

from edgekv.cli.main import main

main()
