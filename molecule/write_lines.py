"""Writes lines as the bank does: each with one write, into whatever file has the name at that moment."""

import json
import os
import sys
import time
import uuid
from datetime import UTC, datetime


def main() -> None:
    """Write so many lines in so many seconds; print their ids."""
    run, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0, begun + seconds * number / count - time.monotonic()))
        event = {
            "@timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "message": f"line {number}",
            "labels.run": run,
            "event.id": uuid.uuid4().hex,
            # Those of transactions are stored once, however often they are sent.
            "event.dataset": "bank.transaction" if number % 2 else "bank.app",
        }
        descriptor = os.open("/var/log/bank/bank.json", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        os.write(descriptor, (json.dumps(event) + "\n").encode())
        os.close(descriptor)


if __name__ == "__main__":
    main()
