"""Every fixed bound of the system, with its reason. What an operator may change is in the configuration instead."""

from __future__ import annotations

# --- line protocol and points
MAX_WRITE_BODY_BYTES = 25_000_000
"""A larger body is refused with 413 before it is read: the default of InfluxDB 1.x."""
MAX_WRITE_BYTES_HELD = 256 << 20
"""Bodies of write requests that one node holds at once, ten of the largest; a further one is refused with 503."""
MAX_REPLICATION_BYTES_HELD = 256 << 20
"""Encoded batches on their way to other owners, those of answered requests included: an owner that hangs holds each
for ``shard-writer-timeout``. Beyond it the owner counts as not reached."""
MAX_LINE_BYTES = 1 << 20
"""A longer line of line protocol is refused by name; it is a mistake, and it would sit in every buffer of the path."""
MAX_KEY_BYTES = 65_535
"""Longest series key (measurement and tags), as in InfluxDB 1.x."""
MAX_STRING_BYTES = 65_536
"""Longest string field value, as the DSDB guide states."""
MAX_REPORTED_LINES = 20
"""A write error names at most this many bad lines, then counts the rest, so that the error stays readable."""
PARSE_BLOCK_BYTES = 2 << 20
"""A write body is parsed in blocks of about this size, so that no step of the parser holds the interpreter for long."""
PARSE_BLOCK_LINES = 10_000
"""Lines of such a block at most, for bodies of very short lines."""
PARSE_CELLS_HELD = 50_000
"""Values of lines read one by one that are kept as objects before they become columns: to look through a million
objects, or to free them, holds the interpreter for long."""
MAX_PARSER_KEY_BYTES = 64 << 20
"""Series keys, as clients write them, that the parser remembers with what they mean; beyond it, it starts anew and
reads each key once more."""
MAX_PARSER_PATTERN_BYTES = 64 << 20
"""Memory of the patterns that the parser keeps for lines with the same fields; those used longest ago are dropped, and
made again when they are needed."""
MAX_PARSER_WANTED = 2_000
"""Forms of lines that the parser counts before it makes a pattern for them, and forms whose fields it remembers; beyond
it, it begins anew."""
MAX_PARSER_FORM_BYTES = 8_000
"""Length of a line, without the content of its strings, up to which its form is counted, gets a pattern and is
remembered; with the bound above that is at most 48 MB each."""
MAX_PARSER_PATTERN_FIELDS = 100
"""Fields of a line up to which a pattern is made for it: making one takes 0.1 ms a field and holds the interpreter."""

# --- metadata
MAX_COMMAND_BYTES = 256 << 10
"""Largest metadata command: above it the Raft library takes a path whose end test is wrong."""
MAX_RAFT_FRAME_BYTES = 64 << 20
"""Largest message between two meta nodes; a snapshot travels in pieces far below it."""
MAX_RAFT_BUFFER_BYTES = 256 << 20
"""Unsent bytes to one peer at which the connection is dropped and made anew."""
MAX_RAFT_SNAPSHOT_BYTES = 256 << 20
"""Largest metadata snapshot, packed or unpacked: a hundred times the practical ceiling of 200,000 shard groups."""
MAX_RAFT_JOURNAL_BYTES = 64 << 20
"""Growth of the Raft journal since its last compaction that forces the next one, whatever the number of entries."""
MAX_RAFT_PROPOSALS = 10_000
"""Commands of one node waiting for their commit; a further one is refused at once."""
MAX_RAFT_HANDSHAKES = 64
"""Raft connections that have not yet proved the cluster secret; further ones are closed at once."""
MAX_RAFT_LEARNERS = 32
"""Nodes replicated without a vote by one node; joining and leaving are brief, so more is a mistake."""
MIN_RAFT_FREE_BYTES = 16 << 20
"""Free space under which no new entry is taken into the Raft log, so that votes and terms can still be written."""
REQUEST_DEDUPE_ENTRIES = 10_000
"""Answers of recent commands kept in the replicated state so that a repeated request is not applied twice."""
REQUEST_DEDUPE_CHUNK_BYTES = 64 << 10
"""Bytes of answers at which one of the table's hundred chunks is closed: 7 MB, unless single answers are larger."""
MAX_TOMBSTONES = 1_000
"""Removed nodes remembered; far more than a cluster replaces while an old disk may still come back."""
MAX_NAME_BYTES = 255
"""Longest name of a database or retention policy, as in InfluxDB 1.x; also the longest name of a directory."""
MAX_SHARD_GROUPS_PER_WRITE = 1_000
"""Shard groups one write request may create; a body with timestamps all over history is cut here with an error."""
RESTORES_PER_NODE = 4
"""Copies of shards under way, for each node that takes any, up to which lost copies are ordered by themselves."""
MAX_MOVES_PER_COMMAND = 1_000
"""Copies of shards that one change of the metadata orders; more are ordered by several changes."""

# --- node to node
MAX_INTERNAL_BODY_BYTES = 256 << 20
"""Largest body of a node-to-node request or answer."""
MAX_INTERNAL_BYTES_HELD = 512 << 20
"""Bodies of node-to-node requests that one node holds at once, two of the largest: a body is read before its signature
can be checked, so strangers must not fill the memory."""
MAX_HANDOFF_BYTES_HELD = 64 << 20
"""Writes that wait to be kept in handoff queues; beyond it they are not kept, and their shards need repair."""
MAX_HANDOFF_CORRUPT_BYTES = 64 << 20
"""Damaged files of the handoff queue of one owner that are kept for a look, also no longer than kept writes are: the
oldest go first. Repair brings the owner what was in them."""
MAX_FILE_LISTINGS = 64
"""Shards whose files other nodes copy from one node at the same time: files that are being copied stay on the disk."""
FILE_LISTING_LEASE_S = 180.0
"""How long files stay for a copy that nobody reads any more: the node that made it has gone, and begins anew."""
PEER_CONNECT_TIMEOUT_S = 1.0
"""A peer that does not accept within a second is treated as away and the next owner is asked."""
MAX_PEER_CONNECTIONS = 32
"""Requests of one kind (control, reads, bulk) to one peer at a time, each with a connection; more wait."""
MAX_PEER_REQUESTS_WAITING = 1_000
"""Requests of one kind that wait for a connection to one peer; a further one fails at once: for a write that means
handoff, for a read the next owner."""
MAX_PEER_LINES = 2_000
"""Peers times kinds of requests with connections of their own: five for each of four hundred nodes."""
PREAMBLE_TIMEOUT_S = 60.0
"""How long an accepted connection may stay silent before its first bytes; browsers pre-connect idle."""
MAX_CONNECTIONS = 10_000
"""Accepted connections per listener; further ones are closed at once."""

# --- users
MAX_VERDICTS_KEPT = 1_000
"""Right pairs of name and password whose check is remembered, and as many wrong ones: a check takes 50 ms on purpose,
and a client sends its password with every request."""
MAX_REQUEST_PROFILES = 10
"""Requests for ``/debug/requests`` that count at the same time."""
MAX_REQUEST_SENDERS = 10_000
"""Users and addresses that such a count tells apart; further ones are not counted."""
MAX_LOGINS_WAITING = 100
"""Passwords that wait for their check, five seconds of work; a further request is refused with 503."""

# --- query text
MAX_QUERY_CHARS = 1 << 20
"""A longer query text is refused before it is read: people and clients write kilobytes, and parsing holds the lock."""
MAX_QUERY_NESTING = 64
"""Parentheses, calls and subqueries inside each other; keeps recursive readers of the tree far from the stack's end."""
MAX_SHOWN_QUERY_CHARS = 4_096
"""Characters of a query that SHOW QUERIES and the log of slow queries print: there may be thousands of queries."""
MAX_EXPRESSION_DEPTH = 200
"""Depth of one expression's tree (a chain of arithmetic counts once per operator), for the same reason."""
MAX_SELECT_FIELDS = 5_000
"""Fields and expressions that one SELECT names: each costs planning, and the time grows faster than their number."""
MAX_REGEX_CHARS = 65_536
"""Length of a regular expression: dashboards make alternatives of all values of a tag."""
MAX_REGEX_REPETITIONS = 1_000
"""Optional parts of a regular expression, repeated ones counted as often; compiling these takes ten milliseconds, and
four times as long for twice as many."""
MAX_REGEX_BYTES = 1 << 20
"""Memory of a compiled regular expression; RE2 refuses larger ones."""
MAX_KEPT_QUERIES = 256
"""Texts whose statements are kept, because dashboards repeat them: at most about 100 kB of syntax tree each."""
MAX_KEPT_QUERY_CHARS = 2_000
"""Longer texts, and texts with longer bound parameters, are parsed each time: they rarely come twice."""

# --- queries
SMALL_QUERY_VALUES = 60_000
"""Values that the event loop reads from memory for a small question, instead of handing it on: under a millisecond."""
SMALL_ANSWER_CELLS = 8_000
"""Values of an answer that the event loop gives at once: it is made and written in about two milliseconds."""
MAX_QUERY_BUCKETS = 1_000_000
"""GROUP BY time buckets in the range of one statement; also groups × buckets after fill, at 8 bytes a column each."""
MAX_QUERY_ROWS = 20_000_000
"""Rows one statement may hold in memory on one node, at about 50 bytes and more each; above it the query is refused."""
MAX_FORECAST_VALUES = 2_000
"""Values and forecasts of ``holt_winters``, all groups together: a fit is tried some thousand times on each of them."""
SLICE_ROWS = 131_072
"""Rows of an answer that are read at a time: a big one is asked for, sent and forgotten in slices of about this size.
A node refuses to hold more than twice as many for one slice, and is asked for a shorter one."""
SLICE_VALUES = 2 << 20
"""Values of such a slice; it has fewer rows where there are many columns."""
MAX_SLICE_TEXT_BYTES = 64 << 20
"""Strings that a node holds for one slice; above it, it is asked for a shorter one."""
MAX_SLICE_GROUPS = 1_024
"""Groups of GROUP BY tags that are asked for by name at a time: each is a term of a predicate."""
MAX_CHUNK_ROWS = 1 << 20
"""Rows of a chunk; a greater ``chunk_size`` means this, because a chunk is put together in memory."""
CLIENT_STALL_TIMEOUT_S = 300.0
"""A client that takes nothing of its answer for so long is cut off: the answer and its query hold memory."""
ENCODE_ROWS = 5_000
"""Rows of an answer that are encoded in one go, so that a big answer does not hold the interpreter for long."""
MAX_EXPLAINED_SHARDS = 100
"""Shards of a source that EXPLAIN names; of the others it says how many there are."""
INTO_ROWS = 20_000
"""Points that SELECT INTO writes at a time: the next are made when these are stored."""
ENCODE_CELLS = 50_000
"""Values of such rows where each becomes an object for a moment, as for MessagePack."""
MAX_MSGPACK_ANSWER_BYTES = 64 << 20
"""One answer in MessagePack, which is kept until it is complete, because its arrays begin with their lengths."""
MAX_MSGPACK_BYTES_HELD = 256 << 20
"""Such answers that one node keeps at once, four of the largest; a further one is refused with 503."""
MAX_ASYNC_QUERIES = 100
"""Requests with ``async=true`` that one node works for at once: nobody waits for them, so nothing else bounds them."""

# --- continuous queries and subscriptions
MAX_CONTINUOUS_QUERY_WINDOWS = 1_000
"""Windows of GROUP BY time that a continuous query makes up for in one run after it was not run for long."""
MAX_SUBSCRIPTION_BYTES_HELD = 64 << 20
"""Points in memory that wait for one destination of a subscription or are on their way to it; beyond it the oldest are
dropped and counted."""

# --- backup and restore
MAX_RESTORE_BODY_BYTES = 16 << 20
"""One request with points of a backup; ``dsdb restore`` sends a few megabytes at a time."""
MAX_RESTORE_METADATA_BYTES = 64 << 20
"""The metadata of a backup in one request: databases, policies, the types of fields, users."""
MAX_RESTORE_BYTES_HELD = 256 << 20
"""Bodies of restores that one node holds at the same time; above it a request is refused with 503 and repeated."""

# --- storage
LATE_BATCH_NS = 3_600 * 10**9
"""Time a batch may take from its coordinator to an owner: far more than any time-out and than clocks that are kept. A
deletion is forgotten no earlier, because a batch that is older than it may still come."""
PURGE_AFTER_NS = 600 * 10**9
"""Age at which rows that a deletion hides are taken out of files no merge takes up: deletions often come several at
once."""
MAX_TOMBSTONE_BYTES = 16 << 10
"""One deletion as a shard keeps it, its condition above all: a shard may keep a thousand, in one file."""
MAX_SHARD_TOMBSTONES = 1_000
"""Deletions one shard keeps until its files are merged: scans and merges compare rows with those that concern them."""
