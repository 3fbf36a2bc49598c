"""The metadata engine: one replicated value, the commands that change it, and the Raft group that orders them."""
