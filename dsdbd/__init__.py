"""DSDB's daemon: a clustered time series database. ARCHITECTURE.md draws its rooms and floors."""
