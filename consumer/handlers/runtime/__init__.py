"""What runs in a worker process beside the user's code: the runtime of the built-in ``lambda`` and ``python`` kinds.

It runs in the interpreter of the user's choice, in which neither the daemon nor its libraries are installed, and under
a package name of its own, so that ``consumer`` and every other name is free for the user's modules. So everything here
needs the standard library of Python 3.9 alone, imports relatively, and imports what the ``python`` kind needs of
``consumer.domain``, and with it msgspec, only for that kind.
"""
