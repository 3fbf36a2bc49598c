"""The cluster floor: how nodes find, trust and call each other, and how writes and reads travel between them."""
