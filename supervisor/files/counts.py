"""What the gate has done, in numbers: shown by its own /metrics, and by the supervisor's, which reads them from a file in the state directory.

The file outlives the gate, so the numbers only rise. They are of transfers that ended; what is under way is shown by the gate alone.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bus.files.calls import CallFailure
from host.private_files import write_over
from host.unreadable import UNREADABLE
from host.whole_file import read_whole

COUNTS_FILE = "files.counts"
MOST_BYTES = 64 * 1024
DIRECTIONS = ("in", "out")
"""In: from the relay to a worker. Out: from a worker to the relay, or where it says."""


class FileCounts(msgspec.Struct):
    """`transfers`, `transferred_bytes` and `under_way` by direction; `failures` by reason."""

    transfers: dict[str, int] = {}
    transferred_bytes: dict[str, int] = {}
    failures: dict[str, int] = {}
    under_way: dict[str, int] = {}

    def transferred(self, direction: str, size: int) -> None:
        """Counts a transfer that is whole."""
        self.transfers[direction] = self.transfers.get(direction, 0) + 1
        self.transferred_bytes[direction] = self.transferred_bytes.get(direction, 0) + size

    def failed(self, failure: CallFailure) -> None:
        self.failures[failure] = self.failures.get(failure, 0) + 1

    @property
    def is_idle(self) -> bool:
        return not any(self.under_way.values())


class CountsFile:
    """The file with the numbers."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / COUNTS_FILE
        self._written = b""

    def read(self) -> FileCounts:
        """Returns what stands there; nothing but zeros where there is nothing, or something else."""
        try:
            return msgspec.json.decode(read_whole(self._path, MOST_BYTES), type=FileCounts)
        except (OSError, *UNREADABLE):
            return FileCounts()

    def write(self, counts: FileCounts) -> None:
        """Writes them where they have changed. Raises OSError."""
        encoded = msgspec.json.encode(counts)
        if encoded != self._written:
            write_over(self._path, encoded)
            self._written = encoded


class FileMetrics(Collector):
    """The numbers as metrics. Label values are of closed sets, whatever a file says."""

    def __init__(self, counts: Callable[[], FileCounts]) -> None:
        self._counts = counts

    def describe(self) -> Iterator[Metric]:
        """Names them without looking."""
        yield from self._families(FileCounts())

    def collect(self) -> Iterator[Metric]:
        """Returns what they are now."""
        yield from self._families(self._counts())

    def _families(self, counts: FileCounts) -> Iterator[Metric]:
        transfers = CounterMetricFamily(
            "hashee_file_transfers",
            "Files that the file gate has passed on whole, by direction: in, out",
            labels=["direction"],
        )
        size = CounterMetricFamily(
            "hashee_file_bytes", "Bytes of ciphertext of these files, by direction: in, out", labels=["direction"]
        )
        under_way = GaugeMetricFamily(
            "hashee_file_under_way", "Transfers that the file gate has begun and not ended", labels=["direction"]
        )
        for direction in DIRECTIONS:
            transfers.add_metric([direction], counts.transfers.get(direction, 0))
            size.add_metric([direction], counts.transferred_bytes.get(direction, 0))
            under_way.add_metric([direction], counts.under_way.get(direction, 0))
        failures = CounterMetricFamily(
            "hashee_file_failures", "Calls to the file gate that failed, by reason", labels=["reason"]
        )
        for reason in CallFailure:
            failures.add_metric([reason], counts.failures.get(reason, 0))
        yield from (transfers, size, under_way, failures)
