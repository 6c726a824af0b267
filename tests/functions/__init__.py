"""One function in several languages, as people have it on Lambda: what a record asks for is in its image.

``do``: ``fail`` (raise), ``partial`` (report it as failed), ``hang``, ``exit``, or nothing. With ``$JOURNAL`` every
record is a line of that file, ``[key, version]``, before anything else is done but for ``fail``.
"""
