"""Which of the mappings of a file are imported: the only one that can be read here, the one that is named, or all."""

from __future__ import annotations

from consumer.cli.lambda_import.found import READABLE, Contents, Found, NotAMapping, Note
from consumer.cli.lambda_import.sources.detect import FORMATS


def readable_mappings(contents: Contents) -> list[Found]:
    """Those that read a stream of DynamoDB or Kinesis. Raises NotAMapping when there is none."""
    found = [one for one in contents.mappings if one.source in READABLE]
    if found:
        return found
    more = "".join(f"; {note}" for note in contents.notes)
    if contents.mappings:
        raise NotAMapping(
            f"holds no event source mapping of a stream of DynamoDB or Kinesis: {_listed(contents.mappings)}{more}"
        )
    raise NotAMapping(f"is no event source mapping: wanted is {FORMATS}{more}")


def chosen_mapping(contents: Contents, name: str | None = None) -> Found:
    """The mapping of a name; without one, the only one that can be read here.

    Raises:
        NotAMapping: there is none, or more than one; the message lists what there is.
    """
    readable = readable_mappings(contents)
    if name is None:
        if len(readable) == 1:
            return readable[0]
        others = [one for one in contents.mappings if one.source not in READABLE]
        beside = f" beside {_listed(others)}" if others else ""
        raise NotAMapping(
            f"holds {len(readable)} event source mappings ({_listed(readable)}){beside}: choose one with --mapping "
            "NAME, or write a file for each with --all-to FOLDER"
        )
    exact = [one for one in contents.mappings if one.name == name]
    named = exact or [one for one in contents.mappings if name in one.also]
    if not exact and len(named) > 1:  # a function with a stream and a queue means the stream
        named = [one for one in named if one.source in READABLE] or named
    if len(named) != 1:
        several = f"the name {name} belongs to {len(named)} mappings" if named else f"holds no mapping {name}"
        raise NotAMapping(f"{several}; choose one of {_listed(named or contents.mappings)}")
    if named[0].source not in READABLE:
        raise NotAMapping(f"the mapping {_listed(named)} cannot be read here: only streams of DynamoDB and Kinesis can")
    return named[0]


def skipped(contents: Contents) -> list[Note]:
    """A note on each mapping that cannot be read here, and on what could not be looked at."""
    others = [one for one in contents.mappings if one.source not in READABLE]
    reason = "not a stream of DynamoDB or Kinesis"
    return [Note(one.name, f"skipped: it reads {one.source}, {reason}") for one in others] + contents.notes


def _listed(mappings: list[Found]) -> str:
    return ", ".join(map(_shown, mappings))


def _shown(mapping: Found) -> str:
    """Its name, with what it reads when that cannot be read here, else with names that say more than a UUID."""
    if mapping.source not in READABLE:
        return f"{mapping.name} ({mapping.source})"
    more = [name for name in mapping.also if name and name not in mapping.name]
    return f"{mapping.name} ({', '.join(more)})" if more else mapping.name
