"""``python -m proxy`` runs one front."""

from proxy.main import main

main()
