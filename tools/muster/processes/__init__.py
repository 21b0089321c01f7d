"""The processes of a host: what each does from its first line to its last.

``node`` and ``front`` are one process each (``python -m tools.muster.processes.node``);
``tools.muster.joined`` is both in one.
``tools.muster.machine.process.crash`` says what becomes of a fault, and with which exit code. Each makes
the real machine (``tools.muster.machine``) and hands it to what it runs.
"""
