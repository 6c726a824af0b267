"""The seams: everything the worker needs from outside, as small protocols.

Production adapters live in ``consumer.aws`` and ``consumer.handlers``; in-memory ones in ``consumer.testing``.
The same contract suite (``tests/contract``) runs on both. Adapters translate every failure into the errors
of ``consumer.domain.errors``; nothing above this line knows an SDK.
"""
