"""Work that nobody asks for: deleting what is too old, and making shard groups before they are needed."""
