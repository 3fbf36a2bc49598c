"""A benchmark with the data and the fifteen questions of the Time Series Benchmark Suite's devops use case."""
