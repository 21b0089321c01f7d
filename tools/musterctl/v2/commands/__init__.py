"""Commands of the v2 API, one module for each group: ``kv``, ``watch``, ``member``, ``auth`` (users and
roles, too), ``copying`` (import), ``backup``. ``tools.musterctl.v2.table`` names what each command runs."""
