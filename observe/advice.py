"""What an audit that does not add up means, and what to do about it, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from observe.types import Json

PARTS = (
    "SELECT table, name, reason FROM system.detached_parts names parts that could not be read: ALTER TABLE …"
    " ATTACH PART takes one in again that a replica or a backup has whole. If it names none, a server died between the"
    " token of an insert and its rows. The stream holds the records for its retention"
)


def advice(partitions: Sequence[Json], differing_windows: int) -> list[str]:
    """One sentence for each thing that is not as it should be; empty where all adds up."""
    told = [sentence for partition in partitions if not partition["ok"] for sentence in _of(partition)]
    if differing_windows:
        told.append(
            f"{differing_windows} windows of the last day count another number of requests than there are spans: a part"
            " of service_windows or of otel_traces was lost or put aside. Spans stay right; SELECT count() over"
            " otel_traces tells what a window should say"
        )
    return told


def _of(partition: Json) -> list[str]:
    place = f"{partition['topic']}, partition {partition['partition']}"
    written = partition["accepted"] - partition["pending"]
    short = written - partition["stored"] - partition["rejected"]
    told = []
    if short > 0:
        told.append(f"{place}: {short} items were inserted and are not in the tables. {PARTS}")
    if short < 0:
        told.append(
            f"{place}: {-short} items more are in the tables than were inserted: their batch was stored twice. The"
            " newest rows with equal TraceId and SpanId (logs: Timestamp and Body) are the second copy"
        )
    if partition["missed"]:
        told.append(
            f"{place}: {partition['missed']} records before offset {partition['committed']} were committed, and the"
            " store does not know them: it was set back (a backup, a power cut without fsync), or another program"
            " commits for this group. Set the group's offset back to next_offset, and the writer stores them again"
        )
    if partition["gaps"]:
        told.append(
            f"{place}: {partition['gaps']} gaps in the offsets: records ended with their retention before they were"
            " stored, or the topic was made anew. Give the stream a longer retention than the store may be away"
        )
    if partition["overlaps"]:
        told.append(
            f"{place}: {partition['overlaps']} ranges of offsets were stored more than once: the topic was made anew,"
            " or ClickHouse's Kafka engine read it (at least once). A new database for a new topic keeps the proof"
        )
    return told
