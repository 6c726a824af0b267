"""How user code is run: in worker processes (``lambda`` and ``python``) or inside the daemon (``python``, inline).

``build`` picks the adapter from the settings; every adapter implements ``consumer.ports.Handler``. This package
imports nothing by itself, because each worker process starts through it.
"""
