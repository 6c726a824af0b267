"""How a function is named: ``module:attribute``, or as the Handler of a Lambda function, ``module.attribute``.

As Lambda's runtime imports it, a module may have any file name (``orders-stream``), and slashes are dots
(``src/app`` is ``src.app``).
"""

from __future__ import annotations

import keyword


def split_target(target: str) -> tuple[str, list[str]]:
    """The module to import, and the names to follow from it. ValueError when a part is missing or is no name."""
    module, separator, attribute = target.partition(":") if ":" in target else target.rpartition(".")
    module, names = module.replace("/", "."), attribute.split(".")
    if not separator or not all(module.split(".")):
        raise ValueError("write it as module:attribute, such as app.handlers:handler")
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"write it as module:attribute, such as app.handlers:handler; {name!r} is no name")
    return module, names
