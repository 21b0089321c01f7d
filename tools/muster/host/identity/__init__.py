"""Who a host is, settled before anything of it runs.

``bootstrap`` makes or reads its IDs, ``by_srv`` finds the first hosts in the DNS, ``joining`` asks a running
cluster, ``restoring`` begins from a backup;
``forcing`` has a host go on alone, ``wal_dir`` has logs lie elsewhere; ``auto_tls`` makes the certificate
that it shows (``self_signed``).
"""
