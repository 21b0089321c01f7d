"""The simulated disks: logs, stores in memory and in RocksDB, and what they lose."""
