"""``python -m proxy JSON`` runs one front."""

from proxy.main import main

main()
