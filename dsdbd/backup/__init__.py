"""`dsdb backup` and `dsdb restore`: clients of the daemon's HTTP API that read and write a backup's directory.

They open a backup's files with the storage engine itself, to check what was copied and to read what is restored.
"""
