"""The processes of a host: ``node``, ``front``, and both in one (``tools.muster.joined``).

Each makes the real machine (``tools.muster.machine``). Exit codes: ``tools.muster.machine.process.crash``.
"""
