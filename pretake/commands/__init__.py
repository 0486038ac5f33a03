"""The subcommands, one file each; none has logic of its own."""
