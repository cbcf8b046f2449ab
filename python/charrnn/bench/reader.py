"""Many streams of the Python client: ``python -m charrnn.bench.reader ADDRESS STREAMS SECONDS``.

A thread a stream, as people write it with a client that blocks. Prints the characters a second that came.
"""

from __future__ import annotations

import os
import sys
import threading
import time

# gRPC reads it when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from charrnn.client import Client
from charrnn.errors import CharrnnError

WARMUP_S = 1.0
MAX_TOKENS = 4096


class Reader(threading.Thread):
    """Text after text until told to stop."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.num_chars = 0
        self.error: CharrnnError | None = None
        self._client = client

    def run(self) -> None:
        """Read for ever; the process ends under it."""
        try:
            while True:
                for chunk in self._client.generate(max_tokens=MAX_TOKENS):
                    self.num_chars += chunk.num_chars
        except CharrnnError as error:
            self.error = error


def main() -> None:
    """Read, count, print."""
    address, streams, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    client = Client(address)
    readers = [Reader(client) for _ in range(streams)]
    for reader in readers:
        reader.start()
    time.sleep(WARMUP_S)
    before, began = sum(reader.num_chars for reader in readers), time.perf_counter()
    time.sleep(seconds)
    after, took = sum(reader.num_chars for reader in readers), time.perf_counter() - began
    for reader in readers:
        if reader.error is not None:
            raise SystemExit(f"error: {reader.error}")
    print((after - before) / took, flush=True)
    os._exit(0)  # the threads still wait for text


if __name__ == "__main__":
    main()
