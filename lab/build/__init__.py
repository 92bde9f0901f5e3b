"""What the lab builds: the host image, the RPM repository and the release archives of its mirror."""
