"""The entries of the table of intended differences, in the order of the document."""

from __future__ import annotations

from tests.cluster.daemons import Answer
from tests.reference.intended import (
    Intended,
    both_answer,
    refused_only_here,
    refused_only_there,
    same_but_for_order,
    same_but_for_own_words,
    same_but_for_times,
    same_series_in_another_order,
    same_times,
    theirs_is_no_json,
    theirs_panicked,
)

_SUBQUERIES = "tests/query/test_subqueries_influxd.py"
_SHOW = "tests/reference/test_show_and_ddl.py"
_CQ = "tests/services/test_continuous_live.py"

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
    Intended(
        "`mode()` of more than a dozen points with equally frequent values",
        r"\bmode\(",
        "select mode(i) from cpu group by host",
        both_answer,
    ),
    Intended(
        "`difference(sum(v))` and the like, GROUP BY time without a lower bound",
        r"(difference|derivative|moving_average|elapsed)\(\w+\((?!.*time >).*group by time",
        "select difference(sum(f)) from cpu where time < 10m group by time(2m)",
    ),
    Intended(
        "`top()`, `bottom()` with LIMIT or OFFSET",
        r"(top|bottom)\(.*(limit|offset)",
        "select top(f, 3) from cpu limit 3",
        both_answer,
    ),
    Intended(
        "`integral()` of several groups",
        r"integral\(",
        "select integral(f) from cpu where time < 10m group by host",
        same_series_in_another_order,
    ),
    Intended("`holt_winters()` of an aggregate of several series", proof="tests/query/test_query_functions_influxd.py"),
    Intended(
        "`holt_winters()` of more than 2,000 values and forecasts, all groups together",
        proof="tests/query/test_query_functions_influxd.py",
    ),
    Intended(
        "`chande_momentum_oscillator(v, 1)`",
        r"chande_momentum_oscillator\(\w+, 1",
        "select chande_momentum_oscillator(v, 1) from seq",
        theirs_panicked,
    ),
    Intended("`tz('Local')`", r"tz\('Local'\)", "select v from dst limit 1 tz('Local')", refused_only_here),
    Intended(
        "`GROUP BY time` with `tz()` where a clock is set back, and no point in the first part of the longer window",
        proof="tests/query/test_query_zones.py",
    ),
    Intended(
        "rows of `GROUP BY time` with `tz()` beside a change of the clock, for selectors and with `ORDER BY time DESC`",
        r"(min|max|first|last|percentile|order by time desc).* tz\('(Europe|America|Australia)",
        "select last(f) from dst where time >= '2018-10-28' and time < '2018-10-29' group by time(2h) fill(0) "
        "tz('Europe/Berlin')",
        both_answer,
    ),
    Intended(
        "equal times in different series, without GROUP BY",
        r"\bfrom ties|\bfrom /|\bfrom mem|distinct\(|\bfrom \(",
        "select x from ties where s != u",
        same_but_for_order,
    ),
    Intended(
        "the time of `percentile()` among equal values",
        r"percentile\(",
        "select percentile(f, 50) from cpu",
        same_but_for_times,
    ),
    Intended("a result that is infinite", r".", "select exp(f) from big", theirs_is_no_json),
    Intended(
        "a measurement that FROM names twice",
        r"from (\w+), \1\b|from /\w+/, cpu|from cpu, /cpu/",
        "select f from cpu, cpu where time < 60s",
        both_answer,
    ),
    Intended(
        "`SELECT time, time, f`",
        r"\btime, time\b|\btime, \w+, time\b",
        "select time, time, f from cpu where time < 60s",
        both_answer,
    ),
    Intended(
        "`*` in another retention policy than the default one",
        r"^select .*\*.* from .*",
        "select * from long.cpu",
        lambda ours, theirs: b'"region"' in theirs.body and b'"region"' not in ours.body,
    ),
    Intended("`*` for a field whose values are all deleted", proof="tests/query/test_query_deletion.py"),
    Intended(
        "`!= /regex/`, a comma before `fill()`",
        r"!= ?/|, ?fill\(",
        "select f from cpu where time < 60s and host != /a/",
        refused_only_there,
    ),
    Intended(
        "comments `/* … */` where a regular expression could stand, "
        "a word and a quoted name without a blank between them",
        r"/\*|\w\"\w",
        "select /* the field */ f from lone",
        lambda ours, theirs: b"error parsing query" in theirs.body,
    ),
    Intended(
        "the words that an error of the parser expects",
        r"\b(drop|show)\b",
        "drop",
        same_but_for_own_words,
    ),
    Intended(
        "functions in functions, and `log()`, in WHERE",
        r"where .*(\b\w+\(\w+\(|log\()",
        "select f from cpu where abs(abs(f)) > 5",
    ),
    Intended(
        "a number or a boolean that is computed as a condition, such as `WHERE f - 3` or `WHERE b ^ true`",
        r"where (.+ )?\(?\w+ [-+*/%&|^] [\w']+\)?( and | or | group |$)",
        "select v from seq where f - 3",
        both_answer,
    ),
    Intended("`::unsigned`", r"::unsigned", "select f::unsigned from cpu where time < 120s", same_times),
    Intended(
        "a statement that fails before it runs, and others after it",
        r";",
        "select nofunc(f) from lone; show measurements limit 1",
        lambda ours, theirs: ours.status == theirs.status and b"not executed" in theirs.body,
    ),
    Intended("`SLIMIT`", r"\bslimit\b", "select mean(f) from cpu where time < 5m group by * slimit 1", both_answer),
    Intended("GROUP BY time with very many buckets", proof="tests/http/test_http_pressure.py"),
    Intended(
        "a statement that needs more than 20,000,000 rows in memory on one node",
        proof="tests/query/test_query_answer_parts.py",
    ),
    Intended('`KILL QUERY 7 ON "host"`', r"kill query", "kill query 1 on host"),
    Intended("a statement above `max-select-point`", proof="tests/http/test_http_select_limits.py"),
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
        both_answer,
    ),
    Intended(
        "`SHOW FIELD KEY CARDINALITY` with WHERE or GROUP BY",
        r"^show field key (exact )?cardinality",
        "show field key exact cardinality group by host",
    ),
    Intended(
        "`SHOW TAG KEYS`, `SHOW TAG VALUES` with times in which no shard is",
        r"^show tag (keys|values).* time [<>]",
        "show tag keys where time > now()",
        both_answer,
    ),
    Intended(
        "`SHOW TAG VALUES CARDINALITY` with times",
        r"^show tag values (exact )?cardinality.* time [<>]",
        "show tag values exact cardinality with key = host where time > 1m",
        both_answer,
    ),
    Intended(
        "`GROUP BY *` of a cardinality",
        r"^show .*cardinality.*group by \*",
        "show series exact cardinality from cpu group by *",
        both_answer,
    ),
    Intended("`WITH KEY = 'host'`", r"with key = '", "show tag values with key = 'host'", refused_only_there),
    Intended("`SHOW SHARDS`, column `owners`", r"^show shards", "show shards", both_answer),
    Intended("`SHOW SUBSCRIPTIONS` as CSV", proof=_SHOW),
    Intended("`CREATE SUBSCRIPTION` with a port above 65535", proof=_SHOW),
    Intended("`CREATE CONTINUOUS QUERY … ON e` in a request for another database", proof=_CQ),
    Intended("continuous queries after a restart", proof=_CQ),
    Intended(
        "`RESAMPLE EVERY` that neither divides the interval nor is a multiple of it",
        proof="tests/services/test_resampling.py",
    ),
    Intended(
        "`LIMIT`, `OFFSET` in a subquery with tags",
        r"\bfrom \(.*(limit|offset).*\)",
        "select f from (select f from cpu where time < 10m group by host limit 2)",
        both_answer,
    ),
    Intended(
        "`SLIMIT`, `SOFFSET` in a subquery",
        r"\bfrom \(.*(slimit|soffset).*\)",
        "select mean from (select mean(f) from cpu where time < 10m group by host slimit 1)",
        both_answer,
    ),
    Intended(
        "`fill(0)`, `fill(previous)`, `fill(linear)` in a subquery with tags "
        "that the outer statement does not group by",
        r"\bfrom \(.*group by .*fill\((-?\d.*|previous|linear)\).*\)",
        "select sum(mean) from (select mean(f) from cpu where time >= 0 and time < 20m group by time(1m), host "
        "fill(previous))",
        both_answer,
    ),
    Intended(
        "an aggregate of windows that begin before the time range, without GROUP BY time outside",
        r"^select \w+\(.* from \(.*group by .*time\(",
        "select sum(count) from (select count(f) from cpu group by time(1m)) where time >= 30s and time < 5m",
        both_answer,
    ),
    Intended(
        "rows of a subquery that are not in the order of time, such as those of selectors with tags",
        r"\bfrom \(",
        "select max from (select max(f) from cpu where time < 10m group by host)",
        same_but_for_order,
    ),
    Intended("several calls in a subquery with tags, of which one has no value in a window", proof=_SUBQUERIES),
    Intended(
        "`WHERE b != true` on a column of a subquery that has no value in a row",
        r"\bfrom \(.* where .*!= ",
        "select f from (select f, b from cpu) where b != true",
        both_answer,
    ),
    Intended("`*` where a tag is a column of a subquery and a tag of a measurement beside it", proof=_SUBQUERIES),
    Intended(
        "two calls of different lead, such as `mean(x), derivative(mean(x))`, of aggregates of a subquery",
        proof=_SUBQUERIES,
    ),
    Intended("lines of `EXPLAIN`", r"^explain", "explain select f from cpu", both_answer),
    Intended(
        "a time in parentheses in WHERE, such as `(time) < 100s`",
        r"where .*\(time\)",
        "select f from cpu where (time) < 100s",
        both_answer,
    ),
    Intended("a comment behind `::`", r"::\s*(--|/\*)", "select f::-- x"),
    Intended(
        "`GROUP BY time(100m, 1m)` without a lower bound",
        r"^(?!.*time >).*group by .*time\([^()]*, *\(?-?\d",
        "select count(f) from cpu where time < 10m group by time(10000m, 1m)",
        both_answer,
    ),
    Intended(
        "`moving_average()` over values of very different size",
        r"moving_average\(.* from big",
        "select moving_average(f, 2) from big",
        same_times,
    ),
)


def explained(statement: str, ours: Answer, theirs: Answer) -> bool:
    """Tell whether a row of the table says why two answers differ."""
    return any(entry.accepts(statement, ours, theirs) for entry in INTENDED)
