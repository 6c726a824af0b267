"""``python -m consumer`` is ``stream-consumer``."""

from consumer.cli.main import main

if __name__ == "__main__":
    main(prog_name="stream-consumer")
