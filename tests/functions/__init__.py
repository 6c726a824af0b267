"""One function in several languages, as people have it on Lambda: what a record asks for is in its image, as ``do``.

``fail``: raise. ``partial``: report the record as failed. ``answer``: return the JSON in ``answer`` as it is.
``large``: return a text of more than 6 MB. ``unmarshalable``: return what JSON cannot hold, where the language has
such a thing. ``hang``: sleep for an hour; ``child``: the same with a child process. ``exit``: end with status 3.
``kill``: end by SIGKILL. ``print``: a line on each stream. ``context``: write what is known of the call to ``file``.
With ``$JOURNAL`` every record that was handled is a line of that file, ``[key, version]``.
"""
