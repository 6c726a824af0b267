"""The handler of ``config/local-emulator.yaml``: prints what it is given. A place to start from."""

from consumer import Context, Record


async def handle(records: list[Record], context: Context) -> list[Record] | None:
    """Return the records that failed, or None."""
    for record in records:
        print(record.event_name, record.keys, record.new_image, flush=True)
    return None
