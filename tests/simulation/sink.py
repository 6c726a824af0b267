"""A DynamoDB table that handlers write to exactly once, as docs/guarantees.md (G6) tells them to."""

from __future__ import annotations

from consumer.testing.history import History, Item


class VersionedSink:
    """One row a key, with the version of what it holds; it is outside all workers and survives them.

    The condition is the documented one. So two things must hold although records come again and zombies write late:
    no version takes effect twice or after a newer one, and none that a handler settled is without effect.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._rows: dict[str, tuple[str, str, int]] = {}  # label, number, version

    def write(self, item: Item, stream_arn: str) -> None:
        """``SET ... IF attribute_not_exists(#seq) OR #label < :label OR (#label = :label AND #seq < :seq)``."""
        label, number = stream_arn.rpartition("/")[2], str(item.number).zfill(40)
        held_label, held_number, held_version = self._rows.get(item.key, ("", "", 0))
        if not (held_label < label or (held_label == label and held_number < number)):
            return  # applied already
        if item.version < held_version:
            self._history.violated("G6 exactly once", f"{item.key} v{item.version} takes effect after v{held_version}")
        self._rows[item.key] = (label, number, item.version)
        item.effects += 1

    def check(self) -> None:
        """At the end. What was dead-lettered may have been settled by a second delivery after newer versions, what was
        trimmed by a zombie after its shard went on without it."""
        for item in self._history.items.values():
            if item.effects > 1 or (item.settles and not item.effects and not item.dead_lettered and not item.lost):
                what = f"{item.key} v{item.version} was settled {item.settles} times"
                self._history.violated("G6 exactly once", f"{what} and took effect {item.effects} times")
