"""The command over tracer, analysis and reference runtime: one file per subcommand."""
