"""bbolt's file format, which etcd's backups have: files written once from front to back, and read.

Read ``pages`` (the layout), ``writer``, then ``reader``. Nothing here opens a file: a writer is given a
function that takes bytes, a reader the bytes of a whole file, say an ``mmap``.
"""

from cluster.bolt.pages import InvalidDatabase
from cluster.bolt.reader import Database
from cluster.bolt.writer import Layout, Measured, NotAsLaidOut, Writer, write

__all__ = ["Database", "InvalidDatabase", "Layout", "Measured", "NotAsLaidOut", "Writer", "write"]
