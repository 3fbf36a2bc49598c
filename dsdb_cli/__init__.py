"""The shell `dsdb`: a client that talks HTTP to a server, and the front door to the daemon's commands."""
