"""Stand-in for Kibana: checks its configuration as Kibana does, keeps what its API is given, and draws nothing."""
