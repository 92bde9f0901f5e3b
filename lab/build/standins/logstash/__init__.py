"""Stand-in for Logstash: checks a configuration as Logstash does, and carries no event."""
