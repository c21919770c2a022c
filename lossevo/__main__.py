"""``python -m lossevo`` is the ``lossevo`` command."""

from lossevo.cli.app import main

main()
