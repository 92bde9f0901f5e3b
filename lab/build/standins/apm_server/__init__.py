"""Stand-in for APM Server: checks its configuration as APM Server does, takes and counts traces, and stores none."""
