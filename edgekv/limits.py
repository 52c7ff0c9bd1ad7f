"""Every bound in the system, with its unit in its name, and asserts for the relations between them."""

from typing import Final

DAY_MS: Final = 24 * 3_600_000
KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

# Keys and values (the defaults of what the configuration may lower).
KEY_BYTES_MAX: Final = 4096
VALUE_BYTES_MAX: Final = 16 * MIB
CHANGE_OVERHEAD_BYTES: Final = 64 * KIB  # what a change needs besides its value: keys, dots, framing
BATCH_OPERATIONS_MAX: Final = 16_384

# The log (wal/frame.py has its format).
SEGMENT_HEADER_BYTES: Final = 4096
SEGMENT_BYTES: Final = 64 * MIB
FRAME_BYTES_TARGET: Final = 1 * MIB  # a frame closes here; 256 KiB when only crcmod is there
FRAME_BYTES_TARGET_SLOW_CRC: Final = 256 * KIB
FRAME_CHANGES_MAX: Final = 16_384
RESERVE_SEGMENTS: Final = 2  # zeroed spares kept for deletes, expiry and received changes on a full disk
RESTART_SEGMENTS: Final = 1  # of those, kept for the start after a crash, which opens a new segment
SPARE_SEGMENTS: Final = 4
SPARE_SEGMENTS_MAX: Final = 8
SPARE_PAUSE_MS: Final = 20  # after each chunk of zeros: 64 MiB at once takes the log's fdatasync p99 from 0.3 to 2.3 ms
SPARE_RETRY_MS: Final = 1_000
SPARE_FREE_BYTES_MIN: Final = 8 * MIB  # a spare never takes the last of the disk, which LMDB and its reserve need
ZERO_CHUNK_BYTES: Final = 1 * MIB
LOG_READ_BYTES: Final = 4 * MIB  # window in which segments are read; a larger frame is read whole
PROMISE_ROOM_BYTES: Final = 128  # kept free in a segment for the idle promise of its last frame
TAIL_BYTES: Final = 16 * MIB  # of the newest frames, kept in memory for those who follow the log (engine/tail.py)
TAIL_FRAME_BYTES: Final = 512  # what CPython adds to a frame and its records there
BUFFERED_SYNC_INTERVAL_MS: Final = 100
TORN_TAIL_KEEP_BYTES: Final = 8 * MIB
TORN_TAIL_COPIES: Final = 2

# Memory.
MEMORY_BYTES_MIN: Final = 64 * MIB
MEMORY_BYTES_DEFAULT_MAX: Final = 1 * GIB
ROW_OVERHEAD_BYTES: Final = 300  # what CPython adds to a row held in a memtable
GENERATION_ROWS: Final = 500_000
GENERATION_AGE_MS: Final = 5_000
FROZEN_GENERATIONS_MAX: Final = 2  # one being applied, one waiting
CACHED_GENERATIONS_MAX: Final = 4  # each is one more lookup for what none of them has
READER_AGE_MS: Final = 100  # a pinned LMDB reader makes the file grow for ever

# Operation ids (engine/operation_ids.py).
OPERATION_WINDOW: Final = 1024  # ids per session
OPERATION_SESSIONS_MAX: Final = 10_000
OPERATION_BYTES_MAX: Final = 64 * MIB  # of all sessions, as counted with the two numbers below
OPERATION_ID_BYTES: Final = 128  # what CPython adds to a reply that is kept; in the log an id takes 30 bytes
OPERATION_SESSION_BYTES: Final = 512  # likewise to a session
OPERATION_REPLY_BYTES_MAX: Final = 512 * KIB  # of one; the results of a batch of BATCH_OPERATIONS_MAX fit

# LMDB.
LMDB_KEY_BYTES_MAX: Final = 511
LMDB_RESERVE_BYTES: Final = 4 * MIB
LMDB_MAP_BYTES: Final = 1 << 40  # a sparse reservation of address space, not of disk
LMDB_READERS_MAX: Final = 1024
APPLIER_POLL_ROWS: Final = 5_000
APPLIER_INLINE_ROWS: Final = 1_000
PURGE_ROWS_MAX: Final = 20_000  # per applier transaction
APPLIER_TRANSACTION_ROWS_MAX: Final = GENERATION_ROWS * 3 // 2  # a generation that overshot stays in one
APPLIER_TRANSACTION_ROWS_MIN: Final = 100  # on an almost full disk
APPLIER_TRANSACTION_BYTES_MAX: Final = 256 * MIB  # keys and values merged before they are written; more is split
APPLIER_IDLE_MS: Final = 10_000  # then it gives back what a generation took, if that is more than
APPLIER_IDLE_BYTES_MAX: Final = 32 * MIB
APPLIER_LOG_BYTES_MAX: Final = 1 * MIB  # what the child's stderr may have grown to before it is cut at a start

# Spools (store/spool.py).
SPOOL_BLOCK_BYTES: Final = 256 * KIB  # of rows under one CRC
SPOOL_SLICE_ROWS: Final = 5_000  # written between two looks at the event loop: 10 ms
FOLD_TRANSACTION_ROWS_MAX: Final = 50_000  # of both sides, joined in one commit: the log's syncs wait behind its 10 MB
FOLD_TRIES_MAX: Final = 8  # of an applier that fails at the same rows each time, about 25 s: then the node is read-only
SPOOL_SLICE_BYTES: Final = 4 * MIB

# Clients.
CONNECTIONS_MAX: Final = 10_000
DESCRIPTORS_OWN: Final = (
    64  # what a node opens besides connections: log, LMDB, pipes, listeners; and connections being refused
)
CONNECTION_INPUT_BYTES_MAX: Final = 64 * MIB  # bytes fed since the last complete command
COMMAND_ARGUMENTS_MAX: Final = 1 << 20
CONNECTION_OUTPUT_BYTES_MAX: Final = 64 * MIB
READ_RUN_BYTES_MAX: Final = (
    1 * MIB
)  # values per read call, and one: what a connection may have in memory beyond its output
SCAN_CURSORS_MAX: Final = 10_000
SCAN_EXAMINED_KEYS_MAX: Final = 2_000  # beyond its own that a page may look at: deleted ones
SCAN_LIMIT_MAX: Final = 10_000
SLICE_MS: Final = 5  # KEYS, DBSIZE, RANDOMKEY give the loop back after this long

# Links to other nodes (net/).
PEER_FRAME_BYTES_MAX: Final = 48 * MIB  # of a message, also before it is compressed: any change fits twice
PEER_COMPRESSED_BYTES_MIN: Final = 256  # smaller messages are sent as they are; a row of JSON alone loses a quarter
PEER_TURN_BYTES: Final = (
    512 * KIB
)  # of messages that one connection hands over in a turn of the loop: changes take 5 ms
PEER_TURN_MESSAGE_BYTES: Final = 8 * KIB  # what each of them counts for besides
PEER_CONNECTIONS_MAX: Final = 1_000  # that others may open here
PEER_OUTPUT_BYTES_MAX: Final = 2 * PEER_FRAME_BYTES_MAX  # not taken by the other side; above it its link is closed
PEER_DEAD_MS: Final = 5_000  # without a sign of life a link is closed
PEER_DIAL_S: Final = 5.0  # for a TCP connection to come about
PEER_BACK_OFF_S_MIN: Final = 0.1  # before another attempt to connect: by chance between this
PEER_BACK_OFF_S_MAX: Final = 1.0  # and twice as much for each that failed, at most this
PEER_IDLE_S: Final = 8.0  # how often an edge looks whether its hub is a member, at first after that
PEER_LASTING_S: Final = 10.0  # a link that lived so long was a good one, and the next attempt is a first one again
PEER_CLOSE_WAIT_S: Final = 1.0  # for other nodes to take the last messages at shutdown

# What clients are promised about other nodes (replication/acks.py, node/session.py).
ACK_WAITERS_MAX: Final = 1 << 16  # replies that wait for other nodes at once; one more leaves without waiting
ACK_PEERS_MAX: Final = 1 << 14  # other nodes of which it is known what they have
ACK_TIMEOUT_MS: Final = 1_000  # how long a reply waits for other nodes when its client names no time
ACK_TIMEOUT_MS_MAX: Final = 3_600_000
SESSION_TOKEN_CHARS_MAX: Final = 7_900  # of a session's token, which HTTP carries in a header: about 450 nodes
SESSION_WAIT_MS: Final = 2_000  # how long a call waits for its node to cover its token when its client names no time
SESSION_WAITERS_MAX: Final = 1 << 14  # calls that wait for that at once; one more is refused as behind

# HTTP (api/http).
HTTP_LINE_BYTES_MAX: Final = 64 * KIB  # a request line: prefix, start and cursor of a scan, each byte of a key as %XX
HTTP_HEADERS_MAX: Final = 64
HTTP_HEADER_BYTES_MAX: Final = 8190
HTTP_IDLE_S: Final = 75  # keep-alive, and the time to send a request's head
HTTP_BODY_WAIT_S: Final = 30  # for a body, plus its length at the rate below
HTTP_BODY_BYTES_PER_S_MIN: Final = 16 * KIB
HTTP_INLINE_BODY_BYTES: Final = (
    128 * KIB
)  # what a connection may hold without asking the budget: aiohttp's own read buffer
HTTP_BATCH_BYTES_MAX: Final = 4 * MIB  # decoding JSON blocks the event loop: about 15 ms per MiB
HTTP_BATCH_OPERATIONS_MAX: Final = 4096  # one callback of the event loop: 40-70 ms measured, 300 ms for 16,384
HTTP_SCAN_BYTES_MAX: Final = 8 * MIB  # a page ends here, whatever its limit
HTTP_SCAN_LIMIT_DEFAULT: Final = 100
HTTP_SCAN_KEYS_MAX: Final = 100_000  # that a page of one type looks at: about a second, in slices
HTTP_SCAN_STEP_ENTRIES: Final = 256  # read and encoded between two looks at the clock
HTTP_WAITING_WRITES_MAX: Final = 1024  # held by back-pressure; more are refused as overloaded
HTTP_ROOM_WAIT_S: Final = 5
HTTP_DURABLE_WAIT_S: Final = 30  # then the outcome is unknown: the disk hangs
HTTP_LINGER_S: Final = 2  # a refused body is read on for this long, so that the client sees the answer before a reset
HTTP_CLOSE_WAIT_S: Final = 5

# RESP (api/resp).
RESP_INLINE_BYTES_MAX: Final = 64 * KIB  # a command typed as a line, as in Redis
RESP_INPUT_BYTES_TOTAL_MAX: Final = 256 * MIB  # unprocessed commands of all connections; above it, each has its share
RESP_INPUT_SHARE_BYTES: Final = 1 * MIB
RESP_OUTPUT_BYTES_TOTAL_MAX: Final = 256 * MIB  # replies that clients have not taken, of all connections; likewise
RESP_OUTPUT_SHARE_BYTES: Final = 1 * MIB
RESP_OUTPUT_HIGH_BYTES: Final = 256 * KIB  # replies a client has not taken: above it its next commands wait
RESP_HELD_BYTES_MAX: Final = 1 * MIB  # replies of one connection that wait for a sync: above it its next commands wait
RESP_TURN_MS: Final = 20  # of one turn of the loop, that the commands of one connection take: then others have theirs
RESP_WRITE_RUN_COMMANDS: Final = 512  # between two looks at the clock
RESP_READ_RUN_KEYS: Final = 64  # keys per read call
RESP_SLOW_COMMANDS_MAX: Final = 4  # KEYS, DBSIZE, FLUSHDB, large sets in progress at once; more wait their turn
RESP_CLOSE_WAIT_S: Final = 2.0  # for clients to take their last replies at shutdown
RESP_PAGE_KEYS: Final = 1_000  # keys or elements per step of those
RESP_PAGES_AT_ONCE: Final = 2  # what a set or map command may read without becoming one of those
RESP_UNION_SETS_MAX: Final = 1_024  # of one SUNION, which merges a page of each
RESP_TRANSACTION_COMMANDS_MAX: Final = BATCH_OPERATIONS_MAX  # of one MULTI; they run in one turn of the loop
RESP_TRANSACTION_ROWS_FREE: Final = 16  # elements, fields and keys that each of them may look at
RESP_TRANSACTION_ROWS_MAX: Final = 64_000  # that all of them together may look at beyond that: 0.3 s
RESP_WAKE_CONNECTIONS: Final = 16  # of those that waited for room, per turn of the loop: all at once would overshoot it

# Links between nodes (replication).
PEER_WINDOW_BYTES: Final = 8 * MIB  # sent and not yet taken in by the peer
PEER_MESSAGE_BYTES: Final = 256 * KIB  # where a message of changes ends
PEER_MESSAGES_AT_ONCE: Final = 4  # that one link sends in a turn of the loop
PEER_ACK_BYTES: Final = 128 * KIB  # taken in, after which the peer is told although nothing is durable yet
PEER_VERDICT_MS_MAX: Final = 30_000  # in which a hub whose HELLO was not taken has to say what it makes of this node
HEARSAY_MS: Final = 10_000  # for so long a hub tells a peer that has asked who else has its changes
HEARSAY_PAUSE_MS: Final = 10  # between two of these messages
HEARSAY_ENTRIES_MAX: Final = 1 << 12  # numbers of members and keyspaces in one of them, and those of one member
UNLISTED_AT_ONCE: Final = 100  # keyspaces that one RETURN tells the leader of
PEER_HEARTBEAT_MS: Final = 1_000
CLOCK_READ_MS: Final = 10_000  # between two readings of a peer's clock with their round trip
LINKS_LOOK_MS: Final = 1_000  # between two looks at who is a member, what is settled, and how far all are
SEEN_INTERVAL_MS: Final = 5_000  # as often as the leader makes a STABLE of them
RESTORED_WAIT_MS: Final = (
    10_000  # in which those come who know what a restored leader has forgotten: twice their pauses between dials
)
RETURN_LEASE_MS: Final = 600_000  # a member that returns and is silent for so long is parked again
SPOOL_CHECK_ROWS: Final = 1_000  # looked at between two turns of the event loop: 3 ms
PART_WRITE_BACK_BYTES: Final = (
    128 * KIB
)  # of a spool that came in, per step of its check: 20 MB/s, and nearly all by its end
# Without a byte of the rows that a peer sends, its link is closed, and they are asked for again.
SYNC_SILENCE_MS: Final = 60_000
SYNC_LOG_BYTES_MAX: Final = 4 * GIB  # of log that stays for row syncs under way, whatever `wal.retain_bytes` is
# That a peer named and this node knows nothing of; above it its link is closed.
SEEN_WAITING_ENTRIES_MAX: Final = 1 << 16
VECTOR_ENTRIES_MAX: Final = 1 << 18  # of all vectors of one message: 26 keyspaces of 10,000 actors; parsed 66 MB
VECTOR_ENTRY_BYTES: Final = 42  # of one in HELLO: actor 27, seq 9, chain 5, the list 1
STABLE_ENTRY_BYTES: Final = 74  # of an actor in a STABLE: twice (in cut and need) 27, 9 and 1
STRANGERS_HEARD_MAX: Final = 64  # nodes that a restored leader has heard and does not know
REINCARNATION_PAUSE_MS: Final = 60_000  # between two new incarnations that a peer's word makes a node take
SPOOL_KEEP_MS: Final = 600_000  # a spool that nobody asks for goes
REBASE_STEP_OPERATIONS: Final = 200  # merged once more between two looks at the event loop: about 3 ms
REBASE_AT_ONCE_MAX: Final = 500  # changes that are not durable yet, with which a flip comes to its end
REBASE_STEPS_MAX: Final = 100  # for which it waits until they are no more than that
# Watches (node/watch.py, api/watch.py).
WATCHES_MAX: Final = 512  # of one node; each may hold a frame, and a window of the log while it lags
WATCH_READ_BYTES: Final = 256 * KIB  # of the log, or of rows, per step; and the window in which a watch reads files
WATCH_STEP_EVENTS: Final = 256  # per step: about 3 ms
WATCH_PAGE_KEYS: Final = 64  # per read of current rows
WATCH_BODIES_BYTES_MAX: Final = 8 * MIB  # of the log's newest runs, unpacked and shared by all watches
WATCH_CURSOR_CHARS_MAX: Final = 48 * KIB  # about a thousand actors
WATCH_HEARTBEAT_S: Final = 15  # of silence; a proxy drops a connection on which nothing moves
WATCH_PAUSE_MS: Final = (
    10  # between two steps of a watch that has caught up, when there are WATCHES_MAX; of fewer, less
)

# Siblings (crdt/siblings.py).
SIBLINGS_MAX: Final = 64  # concurrent values of one key that this node's clients may make; merging may bring more
CONTEXT_DOTS_MAX: Final = 128  # that the context of a read names; a key with more is resolved in several writes
CONTEXT_CHARS_MAX: Final = 7_000  # as text, which HTTP carries in a header

COUNTER_BYTES_MAX: Final = 2_100  # of a counter's total that is an integer: 10^120 times the greatest sum of one node
COUNTER_TEXT_BYTES_MAX: Final = 5_070  # of one that is not, as text: the same with a sign, a point and 17 digits more

HLC_FOLD_MAX: Final = 1 << 63  # nothing near this is ever folded in
CLOCK_AHEAD_MS_MAX: Final = DAY_MS  # of a peer's stamps: further ahead its link is refused

assert SEGMENT_BYTES >= 2 * (VALUE_BYTES_MAX + CHANGE_OVERHEAD_BYTES)
assert SPARE_SEGMENTS > RESERVE_SEGMENTS
assert OPERATION_REPLY_BYTES_MAX + OPERATION_ID_BYTES + OPERATION_SESSION_BYTES <= OPERATION_BYTES_MAX
assert OPERATION_REPLY_BYTES_MAX >= 24 * BATCH_OPERATIONS_MAX  # a 64-bit integer in RESP has 23 bytes
assert MEMORY_BYTES_MIN <= MEMORY_BYTES_DEFAULT_MAX
assert HTTP_LINE_BYTES_MAX > 3 * 3 * KEY_BYTES_MAX + 2 * KEY_BYTES_MAX
assert 2 * (VALUE_BYTES_MAX + CHANGE_OVERHEAD_BYTES) <= PEER_FRAME_BYTES_MAX
assert HTTP_BATCH_OPERATIONS_MAX <= BATCH_OPERATIONS_MAX
assert WATCH_CURSOR_CHARS_MAX < HTTP_LINE_BYTES_MAX
assert VECTOR_ENTRIES_MAX * VECTOR_ENTRY_BYTES <= PEER_FRAME_BYTES_MAX
assert (
    10_000 * STABLE_ENTRY_BYTES * 20 <= VALUE_BYTES_MAX
)  # a STABLE of 20 keyspaces with 10,000 actors each is one entry of meta
assert SIBLINGS_MAX <= CONTEXT_DOTS_MAX
assert CONTEXT_CHARS_MAX < HTTP_HEADER_BYTES_MAX
assert SESSION_TOKEN_CHARS_MAX < HTTP_HEADER_BYTES_MAX
