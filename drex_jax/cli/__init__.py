"""The command line: flags, subcommands, exit statuses, and answers as text or JSON."""
