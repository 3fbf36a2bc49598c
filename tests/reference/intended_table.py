"""The entries of the table of intended differences, in the order of the document."""

from __future__ import annotations

from tests.cluster.daemons import Answer
from tests.reference.intended import (
    Intended,
    refused_only_here,
    refused_only_there,
    same_but_for_order,
    same_but_for_times,
    same_rows_of_each_series,
    same_times,
    theirs_is_no_json,
    theirs_panicked,
)

INTENDED: tuple[Intended, ...] = (
    Intended(
        "`OFFSET` without `LIMIT`",
        r"^(?!.*(?<!s)limit).*(?<!s)offset|^(?!.*slimit [1-9]).*soffset",
        "select f from cpu offset 2",
    ),
    Intended(
        "`fill(3)` on raw points with strings or booleans",
        r"fill\(-?\d",
        "select s, f from cpu where time < 2m fill(0)",
        same_times,
    ),
    Intended("`abs()` of a negative integer", r"\babs\(", "select abs(i) from neg limit 1", same_times),
    Intended("`mode()` with equally frequent values", r"\bmode\(", "select mode(used) from mem", same_times),
    Intended(
        "`difference(sum(v))` and the like, GROUP BY time without a lower bound",
        r"(difference|derivative|moving_average)\(\w+\(.*group by time",
        "select difference(sum(f)) from cpu where time < 10m group by time(2m)",
    ),
    Intended(
        "`top()`, `bottom()` with LIMIT or OFFSET",
        r"(top|bottom)\(.*(limit|offset)",
        "select top(f, 3) from cpu limit 3",
    ),
    Intended(
        "`integral()` of several groups",
        r"integral\(.*(group by|from \w+ *,|from /)",
        check=same_rows_of_each_series,
        proof="tests/query/test_query_picks.py",
    ),
    Intended(
        "`holt_winters()` of an aggregate of several series",
        r"holt_winters(_with_fit)?\((mean|sum|stddev|integral)\(",
        "select holt_winters(mean(load), 2, 4) from sys where time >= 0 and time < 40m group by time(5m)",
        same_times,
    ),
    Intended(
        "`holt_winters()` of more than 2,000 values and forecasts, all groups together",
        proof="tests/query/test_query_picks.py",
    ),
    Intended(
        "`chande_momentum_oscillator(v, 1)`",
        r"chande_momentum_oscillator\(\w+, 1[,)]",
        "select chande_momentum_oscillator(v, 1) from seq",
        theirs_panicked,
    ),
    Intended("`tz('Local')`", r"tz\('Local'\)", "select v from dst limit 1 tz('Local')", refused_only_here),
    Intended(
        "`GROUP BY time` with `tz()` where a clock is set back, and no point in the first part of the longer window",
        proof="tests/query/test_query_zones.py",
    ),
    Intended(
        "equal times in different series, without GROUP BY",
        r"\bfrom ties|\bfrom /|from mem|distinct\(",
        "select x from ties where s != u",
        same_but_for_order,
    ),
    Intended(
        "`SLIMIT`",
        r"\bslimit\b",
        "select mean(f) from cpu where time < 5m group by * slimit 1",
    ),
    Intended(
        "GROUP BY time with very many buckets",
        proof="tests/http/test_http_pressure.py",
    ),
    Intended(
        "a statement that needs more than 20,000,000 rows in memory on one node",
        proof="tests/query/test_query_answer_parts.py",
    ),
    Intended('`KILL QUERY 7 ON "host"`', r"kill query", "kill query 1 on host"),
    Intended(
        "`SHOW QUERIES`, `KILL QUERY` above `max-concurrent-queries`",
        proof="tests/services/test_running_queries_live.py",
    ),
    Intended("statements after one that was ended", proof="tests/services/test_running_queries_live.py"),
    Intended("`DELETE` or `DROP SERIES` with a field in WHERE", proof="tests/cluster/test_deletes_cluster.py"),
    Intended("`DELETE … WHERE host > 'a'`, or two tags compared", proof="tests/cluster/test_deletes_cluster.py"),
    Intended(
        "`SHOW SERIES EXACT CARDINALITY` over several shards",
        r"^show series (exact )?cardinality",
        "show series exact cardinality from cpu",
    ),
    Intended(
        "`SHOW FIELD KEY CARDINALITY` with WHERE or GROUP BY",
        r"^show field key (exact )?cardinality .*(where|group by)",
        "show field key cardinality from cpu group by host",
    ),
    Intended(
        "`SHOW TAG KEYS`, `SHOW TAG VALUES` with times in which no shard is",
        r"^show tag (keys|values) .*where .*time >",
        "show tag keys from cpu where time > now()",
    ),
    Intended("`SHOW TAG VALUES CARDINALITY` with times", proof="tests/reference/test_show_and_ddl.py"),
    Intended("`GROUP BY *` of a cardinality", proof="tests/reference/test_show_and_ddl.py"),
    Intended(
        "`WITH KEY = 'host'`",
        r"^show tag values .*with key = '",
        "show tag values with key = 'host'",
        refused_only_there,
    ),
    Intended("`SHOW SHARDS`, column `owners`", r"^show shards$", "show shards"),
    Intended("`SHOW SUBSCRIPTIONS` as CSV", proof="tests/reference/test_show_and_ddl.py"),
    Intended("`CREATE SUBSCRIPTION` with a port above 65535", proof="tests/reference/test_show_and_ddl.py"),
    Intended(
        "`CREATE CONTINUOUS QUERY … ON e` in a request for another database",
        proof="tests/reference/test_show_and_ddl.py",
    ),
    Intended("continuous queries after a restart", proof="tests/services/test_continuous_live.py"),
    Intended(
        "`RESAMPLE EVERY` that neither divides the interval nor is a multiple of it",
        proof="tests/services/test_resampling.py",
    ),
    Intended(
        "the time of `percentile()` among equal values",
        r"percentile\(",
        "select percentile(f, 50) from cpu",
        same_but_for_times,
    ),
    Intended(
        "a result that is infinite",
        r".",
        "select exp(f) from big",
        theirs_is_no_json,
    ),
)


def explained(statement: str, ours: Answer, theirs: Answer) -> bool:
    """Tell whether a row of the table says why two answers differ."""
    return any(entry.accepts(statement, ours, theirs) for entry in INTENDED)
