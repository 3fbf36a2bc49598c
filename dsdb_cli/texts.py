"""Longer texts the shell prints."""

from __future__ import annotations

USAGE = """\
Usage of dsdb:
  dsdb [flags]                the shell: interactive, or -execute, -import, or statements on standard input
  dsdb status [flags]         state of the cluster on one screen (dsdb status -help)
  dsdb node command [flags]   the nodes of the cluster; moving shards between them (dsdb node -help)
  dsdb backup [flags] PATH    copy a running cluster to a directory (dsdb backup -help)
  dsdb restore [flags] PATH   write a backup into a running cluster (dsdb restore -help)
  dsdb demo [flags]           a cluster on this machine, to try things out (dsdb demo -help)
  dsdb run|config|version     commands of the daemon (dsdbd), as are the flags -config, -join, -hostname, -pidfile

Flags of the shell (-flag value, -flag=value or --flag):
  -host 'host name'           server to connect to; host:port works too (default localhost)
  -port 'port'                port to connect to (default: 8088, then 8086)
  -database 'name'            database to use
  -username 'name'            user name; also from DSDB_USERNAME or INFLUX_USERNAME
  -password 'password'        password; -password '' asks for it; also from DSDB_PASSWORD or INFLUX_PASSWORD
  -ssl                        speak https
  -unsafeSsl                  do not verify the server's certificate
  -execute 'statements'       run statements or commands, one a line, and leave; status 1 after an error
  -format 'column|json|csv'   how results are printed (default column)
  -precision 'rfc3339|h|m|s|ms|u|ns'
                              how times are printed; with -import, the unit of the file's times (default ns)
  -consistency 'any|one|quorum|all'
                              owners that must confirm a write of the shell (default any)
  -pretty                     indent json
  -import                     load an export: needs -path
  -path 'file'                file to import
  -compressed                 the file is gzip
  -pps 'number'               points per second the import may send (default 0: as fast as it can)
  -version                    print the shell's version
  -h, -help                   print this text

Examples:
    dsdb -database metrics -execute 'SELECT * FROM cpu LIMIT 5' -format csv
    dsdb -import -path export.txt -precision s
"""

HELP = """\
Commands of the shell:
        connect <host:port>   talk to another server
        auth [user password]  set user name and password; asks for what is missing
        use <db>[.<rp>]       set the database, and the retention policy, for what follows
        insert <point>        write one point in line protocol
        insert into [<db>.]<rp> <point>
                              write it to another retention policy, which stays set
        format <format>       print results as json, csv or column
        pretty                indent json, or stop doing so
        precision <unit>      print times as rfc3339, h, m, s, ms, u or ns
        consistency <level>   owners that must confirm a write: any, one, quorum or all
        chunked               ask for answers in pieces, or stop doing so
        chunk size <number>   rows in a piece; 0 leaves it to the server
        clear database|rp     forget the database or the retention policy
        settings              show the settings
        history               show the lines entered so far
        exit, quit, ctrl-d    leave

Everything else goes to the server, for example:
        SHOW DATABASES        SHOW MEASUREMENTS     SHOW TAG KEYS     SHOW FIELD KEYS
        SHOW SERVERS          CREATE DATABASE <db>  SELECT * FROM <measurement> LIMIT 10
"""

CLEAR_HELP = """\
clear database (or db)            forget the database
clear retention policy (or rp)    forget the retention policy
"""

GOPHER = r"""
            .--.             .--.
           ( () )___________( () )
            '-/   _     _   \-'
             |   (o)   (o)   |
             |      ___      |
             |     ( " )     |
              \     |_|     /
             _/             \_
            (_|   d s d b   |_)
              |             |
              |             |
              \_  _____  __/
               (__)   (__)
"""

NO_SERVER_HINT = "To start a server, use 'dsdb run' or 'dsdbd'; plain 'dsdb' is the shell."

WRITE_NOTE = """\
Note: error may be due to not setting a database or retention policy.
Please set a database with the command "use <database>" or
INSERT INTO <database>.<retention-policy> <point>"""

QUERY_WARNING = """\
Warning: It is possible this error is due to not setting a database.
Please set a database with the command "use <database>"."""
